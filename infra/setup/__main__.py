"""Install the locked requirements, torch and Nightjar itself into ``.venv``, and find Java: ``make setup``.

``setup.sh`` makes ``.venv`` and runs this module with the Python of ``.venv``, from the root of the repository. The
argument is the path of the program uv:

    TORCH=cpu .venv/bin/python -m infra.setup uv

A stamp in ``.venv`` records what was installed, so that a second run has nothing to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from infra.emr.jvm import archive_path
from infra.setup.java import find_or_install
from infra.setup.packages import Installer, SetupError, install_torch, installed_torch
from jobs.cli.output import accept_any_text

VENV = Path(".venv")
STAMP = VENV / "setup.json"
JAVA_HOME = VENV / "java_home"
LOCK = Path("requirements/dev.txt")
TORCH = Path("requirements/torch.txt")
PROJECT = Path("pyproject.toml")
ARCHIVE_MAKER = Path("infra/emr/jvm.py")


def main() -> int:
    """Install what is missing. Return the exit code: 2, with one line on stderr, if the user has to do something."""
    accept_any_text()
    (uv,) = sys.argv[1:]
    try:
        stamp = _new_stamp()
        if _read_stamp() != stamp or not _has_java():
            _set_up(Installer(uv), stamp)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


def pinned(name: str, lock: Path) -> str:
    """Return the version to which a lock file pins a package."""
    found = re.search(rf"^{re.escape(name)}==([^\s;]+)", lock.read_text(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{lock} does not pin {name}: run make lock")
    return found[1]


def _read_stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _new_stamp() -> dict[str, str]:
    """Return everything that the installation depends on, as the content of its stamp file.

    Torch's build is the one in the variable TORCH, or else the one installed last, or else ``cpu``.
    """
    build = os.environ.get("TORCH") or _read_stamp().get("torch", "cpu")
    if build not in ("cpu", "cuda"):
        raise SetupError(f"TORCH={build} is not a build of torch: use TORCH=cpu or TORCH=cuda")
    files = b"".join(file.read_bytes() for file in (LOCK, TORCH, PROJECT, ARCHIVE_MAKER))
    return {
        "files": hashlib.sha256(files).hexdigest(),
        "torch": build,
        "JAVA_HOME": os.environ.get("JAVA_HOME", ""),
        "archive": _archive_name(),
    }


def _has_java() -> bool:
    return JAVA_HOME.is_file() and os.access(Path(JAVA_HOME.read_text().strip()) / "bin" / "java", os.X_OK)


def _archive_name() -> str:
    """Return the file name of the archive of Spark's classes (see `infra.emr.jvm`).

    The name depends on the versions of Spark and Java. Return an empty string if there is no archive.
    """
    try:
        archive = archive_path(Path(JAVA_HOME.read_text().strip()))
    except OSError:
        return ""
    return archive.name if archive else ""


def _set_up(installer: Installer, stamp: dict[str, str]) -> None:
    # Java comes first: if it is missing, setup fails before it downloads packages for minutes.
    java = find_or_install(os.environ)
    print(f"setup: Java {java.version} in {java.home}", flush=True)
    JAVA_HOME.write_text(f"{java.home}\n")
    _install_packages(installer, stamp["torch"])
    _archive_classes(java.home)
    STAMP.write_text(json.dumps({**stamp, "archive": _archive_name()}, indent=2) + "\n")
    print(f"setup: done, Python {platform.python_version()} in {VENV}", flush=True)


def _install_packages(installer: Installer, build: str) -> None:
    version = pinned("torch", TORCH)
    if platform.system() == "Darwin" and platform.machine() == "x86_64":
        raise SetupError(f"torch {version} has no build for Intel Macs; use a Mac with Apple silicon, or Linux")
    print(f"setup: installing {LOCK}", flush=True)
    STAMP.unlink(missing_ok=True)
    torch = installed_torch(version, build, VENV)
    if not installer.sync(LOCK, torch):
        raise SetupError(f"neither uv nor pip could install {LOCK} (see their output above)")
    if not torch:
        print(f"setup: installing torch {version}, {build}", flush=True)
        install_torch(version, build, os.environ.get("TORCH_INDEX") or None, installer)
    # The build backend was installed with the lock, so nothing is downloaded here.
    if not installer.install("--no-deps", "--no-build-isolation", "--editable", "."):
        raise SetupError("this folder could not be installed as a package (see the output above)")


def _archive_classes(java_home: Path) -> None:
    """Make the archive of Spark's classes. A failure is ignored: without the archive, steps only start more slowly."""
    print("setup: storing the classes of Spark's JVM, so that steps start faster", flush=True)
    command = [sys.executable, "-m", "infra.emr.jvm"]
    subprocess.run(command, env={**os.environ, "JAVA_HOME": str(java_home)}, check=False)


if __name__ == "__main__":
    sys.exit(main())
