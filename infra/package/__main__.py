"""Checks the package for the cluster, and makes a wheelhouse: ``python -m infra.package check|wheelhouse``.

Both really build the job's environment, with the very bootstrap action that runs on a node, where this machine can: it
needs Python 3.11 and the nodes' architecture. Otherwise wheels are checked by their names and hashes, and it says so.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.package.build import PROJECT_ROOT, PackageError, build
from infra.package.upload import copy_folder
from infra.package.wheelhouse import make
from infra.package.wheels import Target


def main() -> int:
    """Return the exit code: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description="The package for the cluster")
    parser.add_argument("command", choices=["check", "wheelhouse"])
    parser.add_argument("--arch", choices=["x86_64", "aarch64"], default="x86_64", help="of the nodes")
    parser.add_argument("--torch", choices=["cpu", "cuda"], default="cpu", help="build of torch")
    parser.add_argument("--output", type=Path, default=PROJECT_ROOT / ".cache" / "wheelhouses", help="local folder")
    parser.add_argument("--lake", help="where the wheelhouse is uploaded to: s3://bucket/prefix or a path")
    options = parser.parse_args()
    target = Target(options.arch, options.torch)
    try:
        if options.command == "check":
            check(target, None)
        else:
            wheelhouse(target, options.output, options.lake)
    except PackageError as error:
        sys.stderr.write(f"package: {error}\n")
        return 2
    return 0


def check(target: Target, wheels: Path | None) -> None:
    """Build the package, say its size, and run its bootstrap action in a folder of its own.

    Raises:
        PackageError: if the environment cannot be built or the job does not import in it.
    """
    package = build()
    size = sum(map(len, package.files.values())) / 1e6
    print(f"package {package.sha256}: {size:.2f} MB, {len(package.files)} files", flush=True)
    if platform.machine() != target.architecture or shutil.which("python3.11") is None:
        print(f"not installed here: that takes {target.architecture} and python3.11 in the PATH", flush=True)
        return
    with tempfile.TemporaryDirectory(prefix="nightjar-package-") as name:
        folder = Path(name) / package.sha256
        folder.mkdir()
        for file, data in package.files.items():
            (folder / file).write_bytes(data)
        command = ["bash", str(folder / "bootstrap.sh"), "--package", f"file://{folder}", "--torch", target.torch_build]
        command += ["--prefix", str(Path(name) / "opt"), *(["--wheels", f"file://{wheels}"] if wheels else [])]
        if subprocess.run(command, check=False).returncode:
            raise PackageError("the job's environment cannot be built (the reason is above)")


def wheelhouse(target: Target, folder: Path, lake: str | None) -> None:
    """Make a wheelhouse, try it, and upload it if a lake is given.

    Raises:
        PackageError: if it would not work.
    """
    made = make(target, folder.absolute())
    size = sum(path.stat().st_size for path in made.iterdir()) / 1e6
    print(f"wheelhouse {made}: {size:.0f} MB, {len(list(made.iterdir()))} files, for {target}", flush=True)
    check(target, made)
    if lake:
        place = copy_folder(made, lake)
        print(f"uploaded; set cluster.wheelhouse, or in Airflow's environment\nNIGHTJAR_CLUSTER_WHEELHOUSE={place}")


if __name__ == "__main__":
    sys.exit(main())
