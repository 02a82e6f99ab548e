"""Checks the package for the cluster, and makes a wheelhouse: ``python -m infra.cli.package check|wheelhouse``.

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

from jobs.errors import NightjarError
from jobs.lake.layout import Lake
from jobs.lake.uri import to_uri
from nightjar.packaging.build import PROJECT_ROOT, PackageError, build
from nightjar.packaging.upload import copy_folder
from nightjar.packaging.wheelhouse import make
from nightjar.packaging.wheels import Target


def main() -> int:
    """Return the exit code: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m infra.cli.package", description="The package for the cluster")
    parser.add_argument("command", choices=["check", "wheelhouse"])
    parser.add_argument("--arch", choices=["x86_64", "aarch64"], default="x86_64", help="of the nodes")
    parser.add_argument("--torch", choices=["cpu", "cuda"], default="cpu", help="build of torch")
    parser.add_argument("--output", type=Path, default=PROJECT_ROOT / ".cache" / "wheelhouses", help="local folder")
    parser.add_argument("--lake", help="where what was made is uploaded to: s3://bucket/prefix or a path")
    options = parser.parse_args()
    target = Target(options.arch, options.torch)
    try:
        lake = Lake(to_uri(options.lake)) if options.lake else None
        if options.command == "check":
            check(target, None, lake)
        else:
            wheelhouse(target, options.output, lake)
    except NightjarError as error:
        sys.stderr.write(f"package: {error}\n")
        return error.exit_code
    return 0


def check(target: Target, wheels: Path | None, lake: Lake | None) -> None:
    """Build the package, say its size, run its bootstrap action in a folder of its own, and upload it to the lake.

    Raises:
        PackageError: if the environment cannot be built, the job does not import in it, or the lake does not take it.
    """
    package = build()
    size = sum(map(len, package.files.values())) / 1e6
    print(f"package {package.sha256}: {size:.2f} MB, {len(package.files)} files", flush=True)
    with tempfile.TemporaryDirectory(prefix="nightjar-package-") as name:
        folder = Path(name) / package.sha256
        folder.mkdir()
        for file, data in package.files.items():
            (folder / file).write_bytes(data)
        if platform.machine() == target.architecture and shutil.which("python3.11"):
            _install(folder, Path(name) / "opt", target, wheels)
        else:
            print(f"not installed here: that takes {target.architecture} and python3.11 in the PATH", flush=True)
        if lake:
            copy_folder(folder, place := lake.package(package.sha256))
            print(f"uploaded to {place}")


def wheelhouse(target: Target, folder: Path, lake: Lake | None) -> None:
    """Make a wheelhouse, try it, and upload it if a lake is given.

    Raises:
        PackageError: if it would not work.
    """
    made = make(target, folder.absolute())
    size = sum(path.stat().st_size for path in made.iterdir()) / 1e6
    print(f"wheelhouse {made}: {size:.0f} MB, {len(list(made.iterdir()))} files, for {target}", flush=True)
    check(target, made, None)
    if lake:
        copy_folder(made, place := lake.wheelhouse(made.name))
        print(f"uploaded; set cluster.wheelhouse, or in Airflow's environment\nNIGHTJAR_CLUSTER_WHEELHOUSE={place}")


def _install(package: Path, prefix: Path, target: Target, wheels: Path | None) -> None:
    command = ["bash", str(package / "bootstrap.sh"), "--package", f"file://{package}", "--torch", target.torch_build]
    command += ["--prefix", str(prefix), *(["--wheels", f"file://{wheels}"] if wheels else [])]
    if subprocess.run(command, check=False).returncode:
        raise PackageError("the job's environment cannot be built (the reason is above)")


if __name__ == "__main__":
    sys.exit(main())
