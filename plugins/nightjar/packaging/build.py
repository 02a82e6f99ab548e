"""Builds the package that goes to the cluster: the same bytes, and so the same name, wherever it is built.

The package is named by the hash of ``SHA256SUMS``, which lists all other files of it: so it is uploaded once and never
changes, and a node can tell that it got what was built. Only the standard library is used here: whoever uploads brings
the storage.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import InputError
from nightjar.packaging import lock
from nightjar.packaging.imports import third_party_imports

PROJECT_ROOT = Path(__file__).resolve().parents[3]
CODE, LAUNCHER, REQUIREMENTS, TORCH = "jobs.zip", "launcher.py", "requirements.txt", "torch.txt"
BOOTSTRAP, SUMS = "bootstrap.sh", "SHA256SUMS"

OF_THE_RELEASE = frozenset({"pyspark", "py4j"})
"""What an EMR release brings, with changes of its own: another copy in the job's environment would hide it."""

_PACKED_SUFFIXES = frozenset({".py", ".toml"})
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can tell


class PackageError(InputError):
    """The package or a wheel would not work on the cluster."""


@dataclass(frozen=True)
class Package:
    """Files by name, and the hash that names them all."""

    sha256: str
    files: dict[str, bytes]


def build(root: Path = PROJECT_ROOT) -> Package:
    """Build the package from the folder that holds `jobs` and, if they are locked, ``requirements/job.txt``.

    Raises:
        FileNotFoundError: if there is no package `jobs` below `root`.
        PackageError: if `jobs` imports what is not locked.
    """
    if not (root / "jobs" / "__init__.py").is_file():
        raise FileNotFoundError(f"{root}: no package jobs in this folder")
    files = {
        CODE: _zip(root, root / "jobs"),
        LAUNCHER: (Path(__file__).parent / LAUNCHER).read_bytes(),
        BOOTSTRAP: (Path(__file__).parent / BOOTSTRAP).read_bytes(),
    }
    locked = root / "requirements" / "job.txt"
    if locked.is_file():
        _check_imports(root, locked.read_text("utf-8"))
        files[REQUIREMENTS] = lock.without(locked.read_text("utf-8"), OF_THE_RELEASE).encode()
        files[TORCH] = (root / "requirements" / "torch.txt").read_bytes()
    files[SUMS] = sums({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    return Package(hashlib.sha256(files[SUMS]).hexdigest(), files)


def sums(hashes: Mapping[str, str]) -> bytes:
    """Hashes of files by name, as ``sha256sum --check`` reads them."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items())).encode()


def _check_imports(root: Path, locked: str) -> None:
    available = set(lock.read(locked)) | {"torch"}
    for module, path in sorted(third_party_imports(root, "jobs").items()):
        if module.replace("_", "-").lower() not in available:
            raise PackageError(
                f"{path} imports {module}, which no node will have: add it to requirements/job.in and run make lock"
            )


def _zip(root: Path, folder: Path) -> bytes:
    """A zip of the code below `folder`: sorted, undated, and stored as it is, since zlibs compress differently."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in _PACKED_SUFFIXES and path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # else it tells which system wrote it
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()
