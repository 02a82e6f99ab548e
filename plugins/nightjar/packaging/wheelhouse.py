"""Makes a wheelhouse: all wheels that a node installs, in one folder named by their hashes, for nodes without internet.

It is apart from the package, which changes with every line of code, and weighs a thousand times as much.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from nightjar.packaging.build import PROJECT_ROOT, SUMS, PackageError, sums
from nightjar.packaging.wheels import PYTHON, Target, check_folder, torch_version

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def make(target: Target, folder: Path, root: Path = PROJECT_ROOT) -> Path:
    """Load the wheels for `target`, check them, and put them into ``<folder>/<sha256>``; return that.

    The name is the hash of the file ``SHA256SUMS`` in it, so the same wheels have the same name.

    Raises:
        PackageError: if a wheel is not to be had or does not fit.
    """
    locked = (root / "requirements" / "job.txt").read_text("utf-8")
    version = torch_version(root)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="loading-") as name:
        loaded = Path(name) / "wheels"
        _load_locked(target, locked, loaded)
        _load_torch(target, locked, version, loaded)
        listed = sums(check_folder(loaded, target, locked, version))
        (loaded / SUMS).write_bytes(listed)
        place = folder / hashlib.sha256(listed).hexdigest()
        if not place.exists():
            loaded.rename(place)
    return place


def _load_locked(target: Target, locked: str, folder: Path) -> None:
    pins = target.pins(locked)
    lines = [f"{pin.name}=={pin.version} {' '.join(f'--hash=sha256:{each}' for each in pin.hashes)}" for pin in pins]
    if not _pip(target, folder, lines, "--require-hashes", "--no-deps"):
        raise PackageError(f"pip could not load the wheels for {target} (its words are above)")


def _load_torch(target: Target, locked: str, version: str, folder: Path) -> None:
    """The CPU build by its mark, as `infra.setup.torch_build` does it; the default build with what of CUDA it needs."""
    if target.torch_build == "cuda":
        constraints = [f"{pin.name}=={pin.version}" for pin in target.pins(locked)]
        found = _pip(target, folder, [f"torch==={version}"], constraints=constraints)
    else:
        wanted = [f"torch=={version}+cpu"]
        found = _pip(target, folder, wanted, "--no-deps") or _pip(
            target, folder, wanted, "--no-deps", "--index-url", CPU_INDEX
        )
    if not found:
        raise PackageError(f"no wheel of torch {version} for {target} at pip's index or {CPU_INDEX}")


def _pip(target: Target, folder: Path, lines: list[str], *options: str, constraints: list[str] | None = None) -> bool:
    """Download what `lines` require, as wheels for `target`; say whether pip could."""
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for flag, content in (("-r", lines), ("-c", constraints or [])):
            path = Path(scratch) / f"file{flag}.txt"
            path.write_text("\n".join(content) + "\n")
            files += [flag, str(path)]
        platforms = [word for platform in target.platforms for word in ("--platform", platform)]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--dest",
            str(folder),
        ]
        command += ["--only-binary", ":all:", "--python-version", f"{PYTHON[0]}.{PYTHON[1]}", "--implementation", "cp"]
        return subprocess.run([*command, *platforms, *options, *files], check=False).returncode == 0
