"""Manifests: the list of a dataset's files, with their sizes and hashes."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.errors import DamagedError
from jobs.lake.names import is_plain
from jobs.lake.strict_json import to_json
from jobs.lake.uri import base_name

FORMAT_VERSION = 1
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """A file of a dataset: its name below the dataset's folder, size in bytes, sha256, and counts (such as tokens)."""

    name: str
    size: int
    sha256: str
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, data: bytes, **counts: int) -> FileEntry:
        """Return the entry of a file that holds `data`."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest(), counts)


@dataclass(frozen=True)
class Manifest:
    """The list of a dataset's files, with the inputs from which the dataset was made."""

    kind: str
    fingerprint: str
    files: tuple[FileEntry, ...]
    counts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def entries(self, prefix: str) -> list[FileEntry]:
        """Return the entries of the files whose names start with `prefix`, in the manifest's order."""
        return [entry for entry in self.files if entry.name.startswith(prefix)]

    def entry(self, name: str) -> FileEntry:
        """Return the entry of the file with this name. Raise DamagedError if the manifest does not list the file."""
        for entry in self.files:
            if entry.name == name:
                return entry
        remedy = "delete its folder and run again to recreate it"
        raise DamagedError(f"manifest of {self.kind} {self.fingerprint}: does not list {name}; {remedy}")

    def to_json(self) -> bytes:
        """Return the content of the manifest's file."""
        return to_json(asdict(self), f"manifest of {self.kind} {self.fingerprint}")


def parse_manifest(data: bytes, uri: str) -> Manifest:
    """Return the manifest that `Manifest.to_json` wrote to the file `uri`.

    Raises:
        DamagedError: if `data` is not a manifest of this format, or a name leads out of the dataset's folder.
    """
    try:
        values = json.loads(data)
        manifest = Manifest(**{**values, "files": tuple(FileEntry(**entry) for entry in values["files"])})
        if manifest.format_version == FORMAT_VERSION and _has_right_types(manifest):
            return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise DamagedError(f"{uri}: not a manifest of format {FORMAT_VERSION}; {_remedy(uri)}")


def _has_right_types(manifest: Manifest) -> bool:
    """Return whether all values of a parsed manifest have valid types, and no file name leads out of its folder."""
    texts: list[Any] = [manifest.kind, manifest.fingerprint]
    tables: list[Any] = [manifest.counts, manifest.inputs]
    for entry in manifest.files:
        texts.append(entry.sha256)
        if type(entry.size) is not int or any(type(count) is not int for count in entry.counts.values()):
            return False
    return (
        all(isinstance(table, dict) for table in tables)
        and all(isinstance(text, str) and text.isprintable() for text in texts)
        and all(is_plain(entry.name) and _SHA256.fullmatch(entry.sha256) for entry in manifest.files)
    )


def check_file(uri: str, entry: FileEntry, size: int | None, sha256: str | None = None) -> None:
    """Compare the size and the hash of the file `uri` with its entry in a manifest.

    A `size` of None means that the file does not exist. If `sha256` is None, the hash is not compared.

    Raises:
        DamagedError: if the file is missing, or differs from the manifest.
    """
    if size is None:
        raise DamagedError(f"{uri}: missing, though the manifest lists it; {_remedy(uri)}")
    if size != entry.size:
        raise DamagedError(f"{uri}: has {size} bytes, the manifest says {entry.size}; {_remedy(uri)}")
    if sha256 not in (None, entry.sha256):
        raise DamagedError(f"{uri}: content differs from the manifest's sha256; {_remedy(uri)}")


def check_content(uri: str, entry: FileEntry, data: bytes) -> None:
    """Compare `data`, the content of the file `uri`, with its entry in a manifest, as `check_file` does."""
    check_file(uri, entry, len(data), hashlib.sha256(data).hexdigest())


def _remedy(uri: str) -> str:
    folder = uri.rpartition("/")[0]
    if base_name(folder) in ("train", "valid"):  # the folders of a split's sides are in the dataset's folder
        folder = folder.rpartition("/")[0]
    return f"delete {folder} and run again to recreate it"
