"""Makes the virtual environment ``.venv`` from the locked requirements and finds Java: ``make setup``.

Runs with nothing but a Python 3.11 to 3.13, from the root of the repository (``setup.sh`` chooses the Python):

    TORCH=cpu python3 -m infra.setup

A stamp in ``.venv`` says what was set up, so that running it again costs nothing.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from infra.setup import apt, torch_build
from infra.setup.java import find_or_install

VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup.json"
JAVA_HOME = VENV / "java_home"
LOCK = Path("requirements/dev.txt")
TORCH = Path("requirements/torch.txt")


class SetupError(Exception):
    """Something the user has to know or do; its text is one line."""


def main() -> int:
    """Sets up what is missing.

    Returns:
        The exit code: 0 when all is there, 2 with one line on stderr when the user has to do something.
    """
    os.chdir(Path(__file__).resolve().parents[2])
    try:
        build = _wanted_build()
        if not _is_done(build):
            _set_up(build)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


def pinned(name: str, lock: Path) -> str:
    """Reads from a lock the version of a package that is the same on every platform."""
    found = re.search(rf"^{re.escape(name)}==([^\s;]+)", lock.read_text(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{lock} does not pin {name}: run make lock")
    return found[1]


def _wanted_build() -> str:
    """The build of torch: what TORCH says, else what was chosen before, else ``cpu``."""
    build = os.environ.get("TORCH") or _read_stamp().get("torch", "cpu")
    if build not in torch_build.BUILDS:
        raise SetupError(f"TORCH={build} is not a build of torch: use TORCH=cpu or TORCH=cuda")
    return build


def _read_stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in stamp.items()} if isinstance(stamp, dict) else {}


def _new_stamp(build: str) -> dict[str, str]:
    """All that the result depends on."""
    return {
        "locks": hashlib.sha256(LOCK.read_bytes() + TORCH.read_bytes()).hexdigest(),
        "torch": build,
        "python": _minor(platform.python_version()),
        "venv": str(VENV.resolve()),
        "JAVA_HOME": os.environ.get("JAVA_HOME", ""),
    }


def _is_done(build: str) -> bool:
    if _read_stamp() != _new_stamp(build) or _venv_version() is None or not JAVA_HOME.is_file():
        return False
    return os.access(Path(JAVA_HOME.read_text().strip()) / "bin" / "java", os.X_OK)


def _set_up(build: str) -> None:
    # Java first: where it is missing and cannot be installed, better to hear it now than in some minutes.
    java = find_or_install(os.environ)
    if isinstance(java, str):
        raise SetupError(java)
    print(f"setup: Java {java.version} in {java.home}", flush=True)
    _make_venv()
    STAMP.unlink(missing_ok=True)
    _install_lock()
    _install_torch(build)
    JAVA_HOME.write_text(f"{java.home}\n")
    STAMP.write_text(json.dumps(_new_stamp(build), indent=2) + "\n")
    print(f"setup: done, Python {_venv_version()} in {VENV}", flush=True)


def _make_venv() -> None:
    """Makes the virtual environment, anew where it is broken, was moved or has another Python."""
    version = _venv_version()
    moved = _read_stamp().get("venv", str(VENV.resolve())) != str(VENV.resolve())
    if version is not None and _minor(version) == _minor(platform.python_version()) and not moved:
        return
    if VENV.is_symlink():
        raise SetupError(f"{VENV} is a link to an environment that does not fit Python {platform.python_version()}")
    print(f"setup: making {VENV} with Python {platform.python_version()}", flush=True)
    if not _can_make_venv():
        minor = _minor(platform.python_version())
        apt.install_one_of(f"python{minor}-venv", "python3-venv")
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if not _can_make_venv() or subprocess.run(command, check=False).returncode:
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment: install its venv module (Debian and Ubuntu: sudo "
            "apt-get install python3-venv) or name another Python (make setup PYTHON=/path/to/python3.12)"
        )


def _can_make_venv() -> bool:
    """Debian and Ubuntu have Python without these."""
    command = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _venv_version() -> str | None:
    """The version of the virtual environment's Python; None where there is none that runs and has pip."""
    command = [str(PYTHON), "-c", "import pip, platform; print(platform.python_version())"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _install_lock() -> None:
    """Installs the lock with uv, which takes seconds; where uv cannot, with pip, which reads pip's configuration."""
    print(f"setup: installing {LOCK}", flush=True)
    lock = ["install", "--require-hashes", "-r", str(LOCK)]
    pip = ["pip", "--disable-pip-version-check"]
    if _runs(*pip, "install", "--quiet", f"uv=={pinned('uv', LOCK)}"):
        if _runs("uv", "pip", *lock, "--python", str(PYTHON)):
            return
        print("setup: uv could not, pip takes over (minutes)", flush=True)
    if not _runs(*pip, *lock):
        raise SetupError(f"pip could not install {LOCK} (its words are above)")


def _runs(*module_and_arguments: str) -> bool:
    """Whether a module ran well in the virtual environment."""
    return subprocess.run([str(PYTHON), "-m", *module_and_arguments], check=False).returncode == 0


def _install_torch(build: str) -> None:
    version = pinned("torch", TORCH)
    if platform.system() == "Darwin" and platform.machine() == "x86_64":
        raise SetupError(f"torch {version} exists for Macs with Apple silicon, not for those with Intel")
    if torch_build.installed_build(version, VENV) in _acceptable(build):
        return
    print(f"setup: installing torch {version}, {build}", flush=True)
    problem = torch_build.install(version, build, os.environ.get("TORCH_INDEX") or None, PYTHON)
    if problem is not None:
        raise SetupError(problem)


def _acceptable(build: str) -> tuple[str, ...]:
    """On macOS there is one build, whatever was asked for."""
    return ("cpu",) if platform.system() == "Darwin" else (build,)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


if __name__ == "__main__":
    sys.exit(main())
