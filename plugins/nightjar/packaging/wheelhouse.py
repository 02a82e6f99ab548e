"""Make and upload a wheelhouse: a folder of all wheels that a node installs, for nodes without internet access.

The wheelhouse is separate from the package, which changes with every line of code. A wheelhouse is a thousand times
larger and changes only with the locks.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from jobs.errors import LakeError
from jobs.lake import store
from jobs.lake.retry import one_line
from jobs.lake.uri import join
from nightjar.packaging import PYTHON_VERSION, TORCH_CPU_INDEX, TORCH_CUDA_INDEX, lock
from nightjar.packaging.build import PROJECT_ROOT, SUMS, PackageError, sums
from nightjar.packaging.wheels import Target, check_folder, torch_version


def make(target: Target, folder: Path, root: Path = PROJECT_ROOT) -> Path:
    """Download the wheels for `target`, check them, and return their folder ``<folder>/<sha256>``.

    The folder is named by the hash of its file ``SHA256SUMS``, so the same wheels give the same name.
    """
    locked = (root / "requirements" / "job.txt").read_text("utf-8")
    version = torch_version(root)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as name:
        downloaded = Path(name) / "wheels"
        _download_locked(target, locked, downloaded)
        torch = target.torch_pins(root)
        _download_torch(target, locked, torch, downloaded)
        listed = sums(check_folder(downloaded, target, locked, version, torch))
        (downloaded / SUMS).write_bytes(listed)
        wheelhouse = folder / hashlib.sha256(listed).hexdigest()
        if not wheelhouse.exists():
            downloaded.rename(wheelhouse)
    return wheelhouse


def copy_folder(folder: Path, folder_uri: str) -> None:
    """Copy a package or a wheelhouse to the lake. The copy is complete when it has SHA256SUMS, which is copied last."""
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == SUMS):
            store.copy(path.as_uri(), join(folder_uri, path.name))
    except OSError as error:
        raise LakeError(f"{folder}: cannot be uploaded to {folder_uri} ({one_line(error)})") from None


def _download_locked(target: Target, locked: str, folder: Path) -> None:
    if not _pip(target, folder, _lines(target.pins(locked)), "--require-hashes", "--no-deps"):
        raise PackageError(f"pip could not download the wheels for {target}; see its output above")


def _download_torch(target: Target, locked: str, torch: list[lock.Pin], folder: Path) -> None:
    """Download the CPU build of torch, or the build for GPUs together with the CUDA distributions that it needs."""
    if target.torch_build == "cuda":
        index, checked = TORCH_CUDA_INDEX, ["--require-hashes"] if all(pin.hashes for pin in torch) else []
        constraints = [] if checked else [f"{pin.name}=={pin.version}" for pin in target.pins(locked)]
        found = _pip(target, folder, _lines(torch), "--extra-index-url", index, *checked, constraints=constraints)
    else:
        index, options = TORCH_CPU_INDEX, ("--require-hashes", "--no-deps")
        found = _pip(target, folder, _lines(torch), *options) or _pip(
            target, folder, _lines(torch), *options, "--index-url", index
        )
    if not found:
        raise PackageError(
            f"no wheel of torch {torch[0].version} for {target} in pip's index or at {index}; see pip's output above"
        )


def _lines(pins: Collection[lock.Pin]) -> list[str]:
    """Return pins as requirements of pip, with their hashes."""
    hashes = ([f"--hash=sha256:{each}" for each in sorted(pin.hashes)] for pin in pins)
    return [" ".join([f"{pin.name}=={pin.version}", *each]) for pin, each in zip(pins, hashes, strict=True)]


def _pip(target: Target, folder: Path, lines: list[str], *options: str, constraints: list[str] | None = None) -> bool:
    """Download the wheels for `target` that match the requirements in `lines`. Return whether pip succeeded."""
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for flag, content in (("-r", lines), ("-c", constraints or [])):
            path = Path(scratch) / f"file{flag}.txt"
            path.write_text("\n".join(content) + "\n")
            files += [flag, str(path)]
        options = (*options, *(word for platform in target.platforms for word in ("--platform", platform)))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--dest", str(folder), "--only-binary", ":all:", "--implementation", "cp"]
        command += ["--python-version", ".".join(map(str, PYTHON_VERSION)), *options, *files]
        return subprocess.run(command, check=False).returncode == 0
