"""The tree as a package: what an editable install and a wheel hold."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from jobs.version import VERSION

ROOT = Path(__file__).parents[1]


def test_the_modules_of_this_folder_are_imported_from_anywhere(tmp_path: Path) -> None:
    code = "import infra, jobs, nightjar; print(infra.__file__, jobs.__file__, nightjar.__file__, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert [Path(line).parent for line in done.stdout.splitlines()] == [
        ROOT / "infra",
        ROOT / "jobs",
        ROOT / "plugins" / "nightjar",
    ]


def test_the_version_of_the_code_is_that_of_the_package() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"] == VERSION


def test_a_wheel_holds_the_data_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "infra/aws/template.yaml",
        "infra/setup/setup.sh",
        "jobs/config/presets/tiny.toml",
        "nightjar/packaging/bootstrap.sh",
        "nightjar/packaging/launcher.py",
    } <= names
    assert not [name for name in names if name.startswith(("dags/", "tests/", "plugins/"))]


def test_the_requirements_are_in_the_locks_alone() -> None:
    """A list in ``pyproject.toml`` as well would be a second truth."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == []
    assert project["scripts"] == {"nightjar": "infra.cli.main:main"}
