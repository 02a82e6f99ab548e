"""``setup.sh`` chooses a Python, gets uv and makes ``.venv``, on machines that hold nothing but stand-ins."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.setup.programs import program

pytestmark = pytest.mark.slow

SCRIPT = Path("infra/setup/setup.sh")
TOOLS = ("awk", "cat", "cp", "dirname", "mkdir", "rm", "sed", "sh", "touch")
UV = Path(sys.prefix) / "bin" / "uv"

PYTHON = """
case "$*" in
    *version_info*) echo {version} ;;
    *ensurepip*) test -e "$0.has-venv" || test ! -e "$0.lacks-venv" ;;
    "-m infra.setup.apt "*) echo "$*" && touch "$0.has-venv" ;;
    "-m venv --clear .cache/uv")
        mkdir -p .cache/uv/bin
        cp "$0" .cache/uv/bin/python ;;
    *"pip "*" --require-hashes -r .cache/uv.txt")
        cp fake_uv .cache/uv/bin/uv ;;
    *) echo "$0 $*" ;;
esac
"""
UV_THAT_WORKS = """
[ "$1" != --version ] || exit 0
echo "uv $*"
mkdir -p .venv/bin
cp python3.12 .venv/bin/python
echo "VIRTUAL_ENV='$(pwd -P)/.venv'" >.venv/bin/activate
"""


class Machine:
    """A checkout in a folder with a space in its name, and a PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a folder"
        self.path = folder / "bin"
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            self.path.mkdir(exist_ok=True)
            (self.path / tool).symlink_to(found)
        (self.root / SCRIPT.parent).mkdir(parents=True)
        shutil.copy(SCRIPT, self.root / SCRIPT)
        shutil.copytree("requirements", self.root / "requirements")
        program(self.root / "fake_uv", UV_THAT_WORKS)
        self.python(self.root / "python3.12", "3.12")

    def python(self, path: Path, version: str) -> Path:
        return program(path, PYTHON.format(version=version))

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.path), "HOME": str(self.root), **environment}
        return subprocess.run([self.root / SCRIPT], env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("newer", ["3.14", "3.15"])
def test_a_newer_python_installs_uv_which_brings_one_that_fits(machine: Machine, newer: str) -> None:
    machine.python(machine.path / "python3", newer)
    done = machine.run()
    assert done.stdout.splitlines() == [
        "setup: installing uv into .cache/uv",
        "setup: making .venv",
        "uv venv --quiet --no-project --prompt nightjar --python >=3.11,<3.14 .venv",
        ".venv/bin/python -m infra.setup .cache/uv/bin/uv",
    ]
    pinned = (machine.root / ".cache" / "uv.txt").read_text()
    assert pinned.startswith("uv==")
    assert pinned.count("==") == 1
    assert "--hash=sha256:" in pinned
    again = machine.run()
    assert again.stdout == ".venv/bin/python -m infra.setup .cache/uv/bin/uv\n"


def test_a_python_without_venv_gets_it_from_apt(machine: Machine) -> None:
    python = machine.python(machine.path / "python3", "3.14")
    python.with_name("python3.lacks-venv").touch()
    done = machine.run()
    assert done.stderr == "-m infra.setup.apt python3.14-venv python3-venv\n"
    assert done.stdout.splitlines()[-1] == ".venv/bin/python -m infra.setup .cache/uv/bin/uv"


def test_without_any_python_an_installed_uv_brings_one(machine: Machine) -> None:
    program(machine.path / "uv", UV_THAT_WORKS)
    assert machine.run().stdout.splitlines()[-1] == ".venv/bin/python -m infra.setup uv"


@pytest.mark.parametrize(
    ("environment", "cause", "command"),
    [
        ({}, "uv could not download one (see its output above)", "sudo apt-get install python3.12 && make setup"),
        (
            {"UV_PYTHON_DOWNLOADS": "never"},
            "UV_PYTHON_DOWNLOADS forbids a download by uv",
            "UV_PYTHON_DOWNLOADS=automatic make setup",
        ),
    ],
)
def test_without_a_download_the_last_line_is_the_command_to_type(
    machine: Machine, environment: dict[str, str], cause: str, command: str
) -> None:
    machine.python(machine.path / "python3", "3.15")
    program(machine.path / "uv", 'test "$1" = --version')
    program(machine.path / "apt-cache", 'test "$2" = python3.12')
    done = machine.run(**environment)
    assert done.returncode == 2
    expected = f"setup: no Python 3.11, 3.12 or 3.13 in PATH, and {cause}. Type: {command}"
    assert done.stderr.splitlines()[-1] == expected


def test_the_real_uv_takes_no_python_that_is_newer(machine: Machine) -> None:
    """A stand-in that answers uv's questions as Python 3.15 would."""
    (machine.path / "uv").symlink_to(UV)
    minor = f"3[.]{sys.version_info.minor}"
    program(machine.path / "python3", f'"{sys.executable}" "$@" | sed "s/{minor}/3.15/g"')
    done = machine.run(UV_PYTHON_DOWNLOADS="never")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("Type: UV_PYTHON_DOWNLOADS=automatic make setup")


def test_a_moved_environment_is_made_again(machine: Machine) -> None:
    program(machine.path / "uv", UV_THAT_WORKS)
    assert "making .venv" in machine.run().stdout
    assert "making .venv" not in machine.run().stdout
    machine.root = machine.root.rename(machine.root.with_name("another folder"))
    assert "making .venv" in machine.run().stdout
    assert "making .venv" not in machine.run().stdout


def test_an_environment_of_another_version_is_made_again(machine: Machine) -> None:
    program(machine.path / "uv", UV_THAT_WORKS)
    machine.run()
    same, other = machine.python(machine.root / "same", "3.12"), machine.python(machine.root / "other", "3.13")
    assert "making .venv" not in machine.run(PYTHON=str(same)).stdout
    assert f"--python {other} .venv" in machine.run(PYTHON=str(other)).stdout


def test_a_linked_environment_is_used_and_left_as_it_is(machine: Machine, tmp_path: Path) -> None:
    program(machine.path / "uv", UV_THAT_WORKS)
    machine.run()
    (machine.root / ".venv").rename(tmp_path / "shared")
    (machine.root / ".venv").symlink_to(tmp_path / "shared")
    refused = machine.run()
    assert refused.returncode == 2
    assert refused.stderr == "setup: .venv is a link to an environment that does not fit: remove the link\n"
    (tmp_path / "shared" / "bin" / "activate").write_text(f"VIRTUAL_ENV='{tmp_path / 'shared'}'\n")
    done = machine.run()
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("name", "body", "found"),
    [("my python", "echo 3.10", "is Python 3.10"), ("broken", "exit 127", "does not run"), (None, "", "does not run")],
)
def test_a_named_python_that_does_not_fit_is_refused_in_one_line(
    machine: Machine, tmp_path: Path, name: str | None, body: str, found: str
) -> None:
    python = program(tmp_path / name, body) if name else Path("/nowhere/python")
    done = machine.run(PYTHON=str(python))
    assert done.returncode == 2
    assert done.stderr == f"setup: PYTHON={python} {found}: Nightjar needs Python 3.11, 3.12 or 3.13\n"


def test_a_machine_without_uv_and_python_is_told_what_to_install(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 2
    assert done.stderr.startswith("setup: no uv, and no Python with the module venv")
    assert done.stderr.count("\n") == 1
