"""Install the build of torch that was asked for, and the CUDA packages, gigabytes, only for ``TORCH=cuda``.

On Linux, torch's default wheel needs the CUDA packages. The version of the CPU build ends in a mark, ``2.13.0+cpu``.
No other build matches a request for exactly that version, whichever index answers.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from infra.setup.installer import Installer

BUILDS = ("cpu", "cuda")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


def installed(version: str, build: str, venv: Path) -> list[str]:
    """Return torch and its CUDA packages as requirements, if `venv` has this version and build.

    Args:
        version: The version of torch, without a local part.
        build: ``cpu`` or ``cuda``.
        venv: The virtual environment.
    """
    folders = [str(folder) for folder in venv.glob("lib/python3.*/site-packages")]
    found = {package.name: package for package in metadata.distributions(path=folders)}
    torch = found.get("torch")
    if torch is None or torch.version.split("+")[0] != version:
        return []
    needs_cuda = any(requirement.startswith(CUDA_PREFIXES) for requirement in torch.requires or [])
    # On macOS the default wheel is the CPU build, and the only one.
    if platform.system() == "Linux" and needs_cuda != (build == "cuda"):
        return []
    return [f"{name}=={found[name].version}" for name in found if name == "torch" or name.startswith(CUDA_PREFIXES)]


def install(version: str, build: str, index: str | None, installer: Installer) -> str | None:
    """Install torch.

    Args:
        version: The version, without a local part.
        build: ``cpu`` or ``cuda``; macOS has one build for both.
        index: The index of the CPU build for Linux; None takes pip's own indexes, then PyTorch's.
        installer: Installs into the virtual environment.

    Returns:
        None, or one line for the user with the problem and what to do.
    """
    if platform.system() == "Darwin":
        done = installer.install("--no-deps", f"torch=={version}")
    elif build == "cuda":
        print("setup: the build with CUDA is a download of more than 1.3 GB and takes several on disk", flush=True)
        # Three equal signs: two would match the CPU build as well.
        done = installer.install(f"torch==={version}")
    else:
        return _install_cpu(["--no-deps", f"torch=={version}+cpu"], version, index, installer)
    machine = f"{platform.system()} {platform.machine()}"
    return None if done else f"torch {version} could not be installed for {machine} (see the output above)"


def _install_cpu(arguments: list[str], version: str, index: str | None, installer: Installer) -> str | None:
    # Quietly: most machines have no CPU build on pip's own indexes.
    if index is None and installer.pip(*arguments, quiet=True):
        return None
    source = index or CPU_INDEX
    print(f"setup: torch {version} for CPU from {source}", flush=True)
    if installer.install(*arguments, "--index-url", source):
        return None
    return (
        f"no CPU build of torch {version} for Python {platform.python_version()} on {platform.machine()} at {source}: "
        "name another index (make setup TORCH_INDEX=URL), or take the build with CUDA, several gigabytes "
        "(make setup TORCH=cuda)"
    )
