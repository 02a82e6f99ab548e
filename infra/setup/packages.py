"""Install the locked requirements and torch into the virtual environment of the running Python.

On Linux, torch's default wheel needs the CUDA packages. The version of the CPU build has a local part, ``2.13.0+cpu``.
So this version selects the CPU build in any package index. The hashes of the CPU build are in
``requirements/torch-cpu.txt``.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from jobs.errors import InputError

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_LOCK = Path("requirements/torch-cpu.txt")
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


class SetupError(InputError):
    """A problem that the user has to solve; its text is one line."""


class Installer:
    """Installs packages with uv, which takes seconds, or with pip if uv fails.

    uv does not read pip's configuration. On some machines, only the package index or certificate in that configuration
    works.
    """

    def __init__(self, uv: str, python: str = sys.executable) -> None:
        self._uv = [uv, "pip"]
        self._options = [*([] if sys.stderr.isatty() else ["--quiet"]), "--python", python]
        self._python = python

    def sync(self, lock: Path, kept: list[str]) -> bool:
        """Install the packages in the lock file `lock`, and check their hashes. Return whether that succeeded.

        uv removes all packages that are neither in the lock nor in `kept`. pip removes nothing.
        """
        command = [*self._uv, "sync", *self._options, str(lock), "-"]
        if subprocess.run(command, input="\n".join(kept), text=True, check=False).returncode == 0:
            return True
        print("setup: uv failed; trying pip, which takes minutes", flush=True)
        ensured = subprocess.run([self._python, "-m", "ensurepip"], capture_output=True, check=False)
        return ensured.returncode == 0 and self.pip("--require-hashes", "--requirement", str(lock))

    def install(self, *arguments: str) -> bool:
        """Run ``uv pip install``, then ``pip install`` if that fails, and return whether one of them succeeded."""
        command = [*self._uv, "install", *self._options, *arguments]
        return subprocess.run(command, check=False).returncode == 0 or self.pip(*arguments)

    def pip(self, *arguments: str, quiet: bool = False) -> bool:
        """Run ``pip install``, without its output if `quiet`, and return whether it succeeded."""
        command = [self._python, "-m", "pip", "--disable-pip-version-check", "install", *arguments]
        return subprocess.run(command, capture_output=quiet, check=False).returncode == 0


def installed_torch(version: str, build: str, venv: Path) -> list[str]:
    """Return the installed torch and its CUDA packages as requirements, such as ``torch==2.13.0+cpu``.

    Return an empty list if `venv` does not have this version and build. `version` has no local part such as ``+cpu``.
    """
    folders = [str(folder) for folder in venv.glob("lib/python3.*/site-packages")]
    found = {package.name: package for package in metadata.distributions(path=folders)}
    torch = found.get("torch")
    if torch is None or torch.version.split("+")[0] != version:
        return []
    needs_cuda = any(requirement.startswith(CUDA_PREFIXES) for requirement in torch.requires or [])
    # On macOS the default wheel is the CPU build, and there is no other build.
    if platform.system() == "Linux" and needs_cuda != (build == "cuda"):
        return []
    return [f"{name}=={found[name].version}" for name in found if name == "torch" or name.startswith(CUDA_PREFIXES)]


def install_torch(version: str, build: str, index: str | None, installer: Installer) -> None:
    """Install torch. `index` is the URL of a package index with the CPU build for Linux.

    If `index` is None, try the indexes in pip's configuration, and then PyTorch's index.

    Raises:
        SetupError: if torch cannot be installed.
    """
    cpu = ["--no-deps", "--require-hashes", "--requirement", str(CPU_LOCK)]
    if platform.system() == "Darwin":
        done = installer.install(*cpu)
    elif build == "cuda":
        print("setup: the build with CUDA is a download of more than 1.3 GB and takes several GB on disk", flush=True)
        # Three equal signs: two would match the CPU build as well.
        done = installer.install(f"torch==={version}")
    else:
        _install_cpu(cpu, version, index, installer)
        return
    if not done:
        machine = f"{platform.system()} {platform.machine()}"
        raise SetupError(f"torch {version} could not be installed for {machine} (see the output above)")


def _install_cpu(arguments: list[str], version: str, index: str | None, installer: Installer) -> None:
    # Without output, since this fails on most machines: the indexes in pip's configuration have no CPU build.
    if index is None and installer.pip(*arguments, quiet=True):
        return
    source = index or CPU_INDEX
    print(f"setup: torch {version} for CPU from {source}", flush=True)
    if not installer.install(*arguments, "--index-url", source):
        raise SetupError(
            f"no CPU build of torch {version} for Python {platform.python_version()} on {platform.machine()} at"
            f" {source}: name another index (make setup TORCH_INDEX=URL), or install the build with CUDA, which takes"
            " several gigabytes (make setup TORCH=cuda)"
        )
