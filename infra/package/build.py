"""Builds the package that goes to the cluster: the same bytes, and so the same name, wherever it is built.

The package is named by the hash of what is in it, so it is uploaded once and never changes. Only the standard library
is used here: whoever uploads brings the storage.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CODE, LAUNCHER, REQUIREMENTS = "jobs.zip", "launcher.py", "requirements.txt"

_PACKED_SUFFIXES = frozenset({".py", ".toml"})
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can tell


@dataclass(frozen=True)
class Package:
    """Files by name, and the hash that names them all."""

    sha256: str
    files: dict[str, bytes]


def build(root: Path = PROJECT_ROOT) -> Package:
    """Build the package from the folder that holds `jobs` and, if they are locked, ``requirements/job.txt``.

    Raises:
        FileNotFoundError: if there is no package `jobs` below `root`.
    """
    if not (root / "jobs" / "__init__.py").is_file():
        raise FileNotFoundError(f"{root}: no package jobs in this folder")
    files = {CODE: _zip(root, root / "jobs"), LAUNCHER: (Path(__file__).parent / LAUNCHER).read_bytes()}
    locked = root / "requirements" / "job.txt"
    if locked.is_file():
        files[REQUIREMENTS] = locked.read_bytes()
    return Package(_hash(files), files)


def _zip(root: Path, folder: Path) -> bytes:
    """A zip of the code below `folder`: sorted, undated, and stored as it is, since zlibs compress differently."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in _PACKED_SUFFIXES and path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # else it tells which system wrote it
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _hash(files: dict[str, bytes]) -> str:
    lines = (f"{hashlib.sha256(data).hexdigest()} {name}\n" for name, data in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
