"""Build the package that runs on the cluster. The build is reproducible: the same code gives the same bytes.

The package is named by the hash of its file ``SHA256SUMS``, which lists the hashes of all other files. So each version
is uploaded once, and a node verifies what it downloaded. This module needs only the standard library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import InputError
from nightjar.packaging import lock
from nightjar.packaging.archive import zip_bytes
from nightjar.packaging.imports import third_party_imports
from nightjar.packaging.node_environment import PROVIDED_BY_EMR

PROJECT_ROOT = Path(__file__).resolve().parents[3]
CODE, LAUNCHER, REQUIREMENTS, TORCH = "jobs.zip", "launcher.py", "requirements.txt", "torch.txt"
BOOTSTRAP, SUMS = "bootstrap.sh", "SHA256SUMS"

_PACKED_SUFFIXES = frozenset({".py", ".toml"})


class PackageError(InputError):
    """The package or a wheel would not work on the cluster."""


@dataclass(frozen=True)
class Package:
    """The files of a package by name."""

    sha256: str
    """Hash of ``SHA256SUMS``, and name of the package's folder in the lake."""
    files: dict[str, bytes]


def build(root: Path = PROJECT_ROOT) -> Package:
    """Build the package from the code in ``<root>/jobs`` and the lock ``<root>/requirements/job.txt``, if there is one.

    Raises:
        FileNotFoundError: if `root` has no package `jobs`.
        PackageError: if `jobs` imports a distribution that is not in the lock.
    """
    if not (root / "jobs" / "__init__.py").is_file():
        raise FileNotFoundError(
            f"{root}: no package jobs in this folder; set NIGHTJAR_PACKAGE_ROOT to the folder that holds jobs"
        )
    files = {
        CODE: zip_bytes(_code(root)),
        LAUNCHER: (Path(__file__).parent / LAUNCHER).read_bytes(),
        BOOTSTRAP: (Path(__file__).parent / BOOTSTRAP).read_bytes(),
    }
    locked = root / "requirements" / "job.txt"
    if locked.is_file():
        _check_imports(root, locked.read_text("utf-8"))
        files[REQUIREMENTS] = lock.without(locked.read_text("utf-8"), PROVIDED_BY_EMR).encode()
        files[TORCH] = (root / "requirements" / "torch.txt").read_bytes()
    files[SUMS] = sums({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    return Package(hashlib.sha256(files[SUMS]).hexdigest(), files)


def sums(hashes: Mapping[str, str]) -> bytes:
    """Return the hashes of files by name, in the format of ``sha256sum --check``."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items())).encode()


def _check_imports(root: Path, locked: str) -> None:
    available = set(lock.read(locked)) | {"torch"}
    for module, path in sorted(third_party_imports(root, "jobs").items()):
        if module.replace("_", "-").lower() not in available:
            raise PackageError(
                f"{path} imports {module}, which is not in requirements/job.txt: add it to requirements/job.in and run"
                " make lock"
            )


def _code(root: Path) -> dict[str, bytes]:
    """Return the modules and presets of `jobs` by their paths below `root`."""
    paths = (path for path in (root / "jobs").rglob("*") if path.suffix in _PACKED_SUFFIXES and path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}
