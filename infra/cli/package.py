"""Check the package for the cluster, and make a wheelhouse: ``nightjar aws-package check|wheelhouse``.

Both commands build the job's environment on this machine, with the same bootstrap action that the nodes run. This needs
Python 3.11 and the nodes' processor architecture. On any other machine, the commands print that nothing was installed.
The wheels of a wheelhouse are checked by name and hash on every machine.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

if TYPE_CHECKING:
    from jobs.lake.layout import Lake
    from nightjar.packaging.wheels import Target

app = typer.Typer()
package = typer.Typer(help="Check the package for the cluster, or make a wheelhouse.")
app.add_typer(package, name="aws-package", rich_help_panel="AWS")

Arch = Annotated[Literal["x86_64", "aarch64"], Option(help="Processor architecture of the nodes.")]
Torch = Annotated[Literal["cpu", "cuda"], Option(help="Build of torch.")]
UploadTo = Annotated[
    str | None,
    Option(metavar="PLACE", help="Lake to upload the result to: a path, file:///... or s3://..."),
]


@package.command("check")
def check(arch: Arch = "x86_64", torch: Torch = "cpu", lake: UploadTo = None) -> None:
    """Build the package, and run its bootstrap action on this machine, in a temporary folder."""
    from nightjar.packaging.wheels import Target

    _check(Target(arch, torch), None, _lake(lake))


@package.command("wheelhouse")
def wheelhouse(
    arch: Arch = "x86_64",
    torch: Torch = "cpu",
    output: Annotated[
        Path | None, Option(metavar="DIR", help="Folder to write to. Default: .cache/wheelhouses in the project.")
    ] = None,
    lake: UploadTo = None,
) -> None:
    """Make a folder of wheels for nodes without internet access. As a test, install from it on this machine."""
    from nightjar.packaging.build import PROJECT_ROOT
    from nightjar.packaging.wheelhouse import copy_folder, make
    from nightjar.packaging.wheels import Target

    target, place = Target(arch, torch), _lake(lake)
    made = make(target, (output or PROJECT_ROOT / ".cache" / "wheelhouses").absolute())
    size = sum(path.stat().st_size for path in made.iterdir()) / 1e6
    typer.echo(f"wheelhouse {made}: {size:.0f} MB, {len(list(made.iterdir()))} files, for {target}")
    _check(target, made, None)
    if place:
        uploaded = place.wheelhouse(made.name)
        copy_folder(made, uploaded)
        typer.echo(
            "wheelhouse uploaded; set cluster.wheelhouse to its URI, or set this variable in Airflow's environment:"
        )
        typer.echo(f"NIGHTJAR_CLUSTER_WHEELHOUSE={uploaded}")


def _lake(place: str | None) -> Lake | None:
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri

    return Lake(to_uri(place)) if place else None


def _check(target: Target, wheels: Path | None, lake: Lake | None) -> None:
    """Build the package, and run its bootstrap action in a temporary folder.

    If `lake` is given, upload the package to it.
    """
    from nightjar.packaging.build import build
    from nightjar.packaging.wheelhouse import copy_folder

    built = build()
    size = sum(map(len, built.files.values())) / 1e6
    typer.echo(f"package {built.sha256}: {size:.2f} MB, {len(built.files)} files")
    with tempfile.TemporaryDirectory(prefix="nightjar-package-") as name:
        folder = Path(name) / built.sha256
        folder.mkdir()
        for file, data in built.files.items():
            (folder / file).write_bytes(data)
        if platform.machine() == target.architecture and shutil.which("python3.11"):
            _install(folder, Path(name) / "opt", target, wheels)
        else:
            typer.echo(f"nothing was installed: this needs an {target.architecture} processor, and python3.11 in PATH")
        if lake:
            copy_folder(folder, lake.package(built.sha256))
            typer.echo(f"uploaded to {lake.package(built.sha256)}")


def _install(package_folder: Path, prefix: Path, target: Target, wheels: Path | None) -> None:
    """Run the bootstrap action of a package, which installs into `prefix`. Its output goes to this terminal."""
    from nightjar.packaging.build import PackageError

    command = ["bash", str(package_folder / "bootstrap.sh"), "--package", f"file://{package_folder}"]
    command += ["--torch", target.torch_build, "--prefix", str(prefix)]
    if wheels:
        command += ["--wheels", f"file://{wheels}"]
    if subprocess.run(command, check=False).returncode:
        raise PackageError("the job's environment cannot be built; the reason is above")
