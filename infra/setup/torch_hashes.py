"""Write the hashes of torch's wheels into ``requirements/torch-*.txt``: ``make torch-hashes``.

The hashes of the CPU build are read from the links in PyTorch's index. The build for GPUs needs CUDA packages from
several indexes, so uv resolves its requirements and their hashes. Run this command after the version in
``requirements/torch.txt`` has changed. It needs internet access.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote
from urllib.request import urlopen

from infra.setup.__main__ import TORCH, pinned
from infra.setup.packages import CPU_INDEX, CPU_LOCK, SetupError

CUDA_LOCK = Path("requirements/torch-cuda.txt")
PYTHONS = ("cp311", "cp312", "cp313")
"""The versions of Python for which hashes are written, as wheel tags. The nodes of a cluster have the first."""
BUILDS = {
    "+cpu ; sys_platform == 'linux'": ("+cpu", ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")),
    " ; sys_platform == 'darwin'": ("", ("macosx_14_0_arm64",)),
}
"""The CPU builds. A key is the end of a requirement. A value is the version's local part and the wheels' platforms."""
_LINK = re.compile(r'href="[^"]*?/?([^/"#]+\.whl)#sha256=([0-9a-f]{64})"')
_SECONDS = 60


def main() -> int:
    """Write ``torch-cpu.txt`` and ``torch-cuda.txt``, and return the exit code."""
    version = pinned("torch", TORCH)
    try:
        with urlopen(f"{CPU_INDEX}/torch/", timeout=_SECONDS) as page:  # noqa: S310 - a fixed https address
            listed = read_index(page.read().decode())
        _replace(CPU_LOCK, cpu_lines(listed, version))
        _replace(CUDA_LOCK, _cuda_lines(_cuda_pin()))
    except (OSError, SetupError) as error:
        sys.stderr.write(f"torch-hashes: {error}\n")
        return 1
    sys.stdout.write(
        f"torch-hashes: wrote {CPU_LOCK} and {CUDA_LOCK}; look at the difference, and run make package-check\n"
    )
    return 0


def read_index(page: str) -> dict[str, str]:
    """Return the wheels that a page of a package index links to, as a dict from file name to SHA-256 hash."""
    return {unquote(name): sha256 for name, sha256 in _LINK.findall(page)}


def cpu_lines(listed: dict[str, str], version: str) -> list[str]:
    """Return the lines that require torch's CPU build, with the hashes of its wheels for all platforms.

    `listed` is the result of `read_index`.

    Raises:
        SetupError: if the index lacks one of the wheels.
    """
    lines = []
    for ending, (local, platforms) in BUILDS.items():
        names = [f"torch-{version}{local}-{each}-{each}-{platform}.whl" for platform in platforms for each in PYTHONS]
        if missing := [name for name in names if name not in listed]:
            raise SetupError(f"{CPU_INDEX} has no {', '.join(missing)}")
        hashes = [f"    --hash=sha256:{listed[name]}" for name in names]
        lines += " \\\n".join([f"torch=={version}{ending}", *hashes]).splitlines()
    return lines


def _cuda_pin() -> str:
    """Return the requirement of torch in ``torch-cuda.txt``, such as ``torch==2.13.0+cu126``."""
    found = re.search(r"^torch==[^\s\\;]+", CUDA_LOCK.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SetupError(f"{CUDA_LOCK} does not pin torch: write torch==VERSION+cuNNN")
    return found[0]


def _cuda_lines(pin: str) -> list[str]:
    """Return the lines that require torch's build for GPUs and its dependencies, with the hashes for the nodes."""
    build = pin.rpartition("+")[2]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "torch.in"
        source.write_text(f"{pin}\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header"]
        command += ["--no-emit-index-url", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
        command += ["--index", f"https://download.pytorch.org/whl/{build}", "--index-strategy", "unsafe-best-match"]
        command += ["--constraint", "requirements/job.txt", "--no-annotate", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"uv could not resolve {pin}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout.splitlines()


def _replace(path: Path, lines: list[str]) -> None:
    """Replace the requirements in a file with `lines`. Keep its comments, except those with the word ``unchecked``."""
    comments = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    kept = [line for line in comments if "unchecked" not in line]
    path.write_text("\n".join([*kept, *lines]) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
