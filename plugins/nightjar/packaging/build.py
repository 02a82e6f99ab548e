"""Build the package that runs on the cluster. The build is reproducible: the same code gives the same bytes.

The package is named by the hash of its file ``SHA256SUMS``, which lists the hashes of all other files. So each version
is uploaded once, and a node verifies what it downloaded. This module needs nothing but the standard library and `jobs`.
"""

from __future__ import annotations

import ast
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import InputError
from jobs.fingerprint import import_statements
from nightjar.packaging import PROVIDED_BY_EMR, lock

PROJECT_ROOT = Path(__file__).resolve().parents[3]
CODE, LAUNCHER, REQUIREMENTS = "jobs.zip", "launcher.py", "requirements.txt"
TORCH_FILES = ("torch.txt", "torch-cpu.txt", "torch-cuda.txt")
BOOTSTRAP, SUMS = "bootstrap.sh", "SHA256SUMS"

PACKED_SUFFIXES = frozenset({".py", ".toml", ".html", ".css"})
_EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip entry can have
_UNIX = 3
_FILE_MODE = 0o644 << 16


class PackageError(InputError):
    """The package or a wheel would not work on the cluster."""


@dataclass(frozen=True)
class Package:
    """The content of a package: a dict from file name to bytes, and the hash that names the package."""

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
        files |= {name: (root / "requirements" / name).read_bytes() for name in TORCH_FILES}
    files[SUMS] = sums({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    return Package(hashlib.sha256(files[SUMS]).hexdigest(), files)


def sums(hashes: Mapping[str, str]) -> bytes:
    """Return `hashes`, a dict from file name to hash, as lines in the format of ``sha256sum --check``."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items())).encode()


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of `files`, a dict from name to content, in the order given.

    The same files always give the same bytes: every entry has the same date, file mode and operating system, and is
    stored uncompressed, because versions of zlib differ in their output.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EARLIEST_DATE)
            entry.create_system, entry.external_attr = _UNIX, _FILE_MODE
            archive.writestr(entry, data)
    return buffer.getvalue()


def _check_imports(root: Path, locked: str) -> None:
    available = set(lock.read(locked)) | {"torch"}
    for module, path in sorted(third_party_imports(root).items()):
        if lock.normalized(module) not in available:
            raise PackageError(
                f"{path} imports {module}, which is not in requirements/job.txt: add it to requirements/job.in and run"
                " make lock"
            )


def _code(root: Path) -> dict[str, bytes]:
    """Return the modules, presets and templates of `jobs`, as a dict from path below `root` to content."""
    paths = (path for path in (root / "jobs").rglob("*") if path.suffix in PACKED_SUFFIXES and path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


def third_party_imports(root: Path) -> dict[str, Path]:
    """Return the third-party top-level modules that `jobs` below `root` imports, each with a file that imports it.

    Several distributions share the top-level module `backports`, so its submodules are returned instead.
    """
    own = sys.stdlib_module_names | {"jobs"}
    found: dict[str, Path] = {}
    for path in sorted((root / "jobs").rglob("*.py")):
        for name in _imported_names(path.read_bytes()):
            top, *below = name.split(".")
            if top not in own:
                found.setdefault(f"{top}.{below[0]}" if top == "backports" else top, path.relative_to(root))
    return found


def _imported_names(source: bytes) -> Iterator[str]:
    """Yield the dotted names that a module imports, except by relative imports."""
    for statement in import_statements(source):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif statement.module and not statement.level:
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
