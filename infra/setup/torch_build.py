"""Installs the build of torch that was asked for, and never gigabytes of CUDA unasked.

On Linux, torch's default wheel needs the CUDA packages. Its CPU build is marked by a local version, ``2.13.0+cpu``, and
asking for exactly that is the guard: no other build can match, whichever indexes pip is configured with.
"""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

BUILDS = ("cpu", "cuda")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


def installed_build(version: str, venv: Path) -> str | None:
    """Tells which build of torch a virtual environment has.

    Args:
        version: The version looked for, without a local part.
        venv: The virtual environment.

    Returns:
        ``cpu`` or ``cuda``; None where torch is absent or of another version.
    """
    site_packages = [str(path) for path in venv.glob("lib/python3.*/site-packages")]
    for found in metadata.distributions(name="torch", path=site_packages):
        if found.version.split("+")[0] == version:
            return _build_of(found.requires or [])
    return None


def install(version: str, build: str, index: str | None, python: Path) -> str | None:
    """Installs torch.

    Args:
        version: Its version, without a local part.
        build: ``cpu`` or ``cuda``. On macOS the default wheel is the CPU build, and the only one.
        index: Where the CPU build for Linux is taken from; None tries what pip is configured with, then PyTorch's own.
        python: The interpreter of the virtual environment.

    Returns:
        None, or one line for the user that says what is wrong and what to do.
    """
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    if platform.system() == "Darwin":
        return _install_default([*pip, "--no-deps", f"torch=={version}"], version)
    if build == "cuda":
        print(
            "setup: the default Linux build of torch, with CUDA: more than 1.3 GB to download, several on disk",
            flush=True,
        )
        # Three equal signs: the CPU build would satisfy two.
        return _install_default([*pip, f"torch==={version}"], version)
    return _install_cpu([*pip, "--no-deps", f"torch=={version}+cpu"], version, index)


def _install_default(command: list[str], version: str) -> str | None:
    if subprocess.run(command, check=False).returncode == 0:
        return None
    return f"pip could not install torch {version} for {platform.system()} {platform.machine()} (its words are above)"


def _install_cpu(command: list[str], version: str, index: str | None) -> str | None:
    # Quietly: that pip's own indexes have no CPU build is the ordinary case, not an error.
    if index is None and subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return None
    source = index or CPU_INDEX
    print(f"setup: torch {version} for CPU from {source}", flush=True)
    if subprocess.run([*command, "--index-url", source], check=False).returncode == 0:
        return None
    return (
        f"no CPU build of torch {version} for Python {platform.python_version()} on {platform.machine()} at {source}: "
        "name another index (make setup TORCH_INDEX=URL), or take the build with CUDA, several gigabytes "
        "(make setup TORCH=cuda)"
    )


def _build_of(requirements: list[str]) -> str:
    needs_cuda = any(requirement.startswith(CUDA_PREFIXES) for requirement in requirements)
    return "cuda" if needs_cuda and platform.system() == "Linux" else "cpu"
