"""What ``make setup`` finds, chooses and says, with programs that answer as the real ones do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import setup
from infra.setup import apt, java, torch_build


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def fake_java(home: Path, version: str) -> Path:
    """Answers as ``java -XshowSettings:properties -version`` does: on stderr, among other lines."""
    lines = f"Picked up JAVA_TOOL_OPTIONS: -Dx\\n    java.home = {home}\\n    java.specification.version = {version}\\n"
    return program(home / "bin" / "java", f"printf '{lines}' >&2")


def pip_that_finds(tmp_path: Path, word: str) -> tuple[Path, Path]:
    """A Python whose pip installs only what is asked for with this word, and its log."""
    log = tmp_path / "pip.log"
    body = f'echo "$*" >> "{log}"\ncase "$*" in *{word}*) exit 0;; esac\nexit 1'
    return program(tmp_path / "python", body), log


def venv_with_torch(venv: Path, version: str, *requirements: str) -> Path:
    folder = venv / "lib" / "python3.12" / "site-packages" / f"torch-{version}.dist-info"
    folder.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n{needs}")
    return venv


def run_setup(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["infra/setup/setup.sh"], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    home, other = tmp_path / "java 21", tmp_path / "java 17"
    fake_java(home, "21")
    fake_java(other, "17")
    found, passed_over = java.find({"JAVA_HOME": str(home), "PATH": str(other / "bin")}, places=[])
    assert found == java.Java(home, 21)
    assert passed_over == []


@pytest.mark.parametrize("version", ["1.8", "11", "25"])
def test_another_java_is_passed_over_for_one_in_the_usual_places(tmp_path: Path, version: str) -> None:
    fake_java(tmp_path / "wrong", version)
    fake_java(tmp_path / "jvm" / "java-17", "17")
    environment = {"JAVA_HOME": str(tmp_path / "wrong"), "PATH": "/nowhere"}
    found, passed_over = java.find(environment, places=[str(tmp_path / "jvm" / "*" / "bin" / "java")])
    assert found == java.Java(tmp_path / "jvm" / "java-17", 17)
    assert [other.version for other in passed_over] == [int(version.removeprefix("1."))]


def test_a_stub_that_only_complains_is_no_java(tmp_path: Path) -> None:
    stub = program(tmp_path / "java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    assert java.probe(stub) is None


def test_the_java_of_this_machine_fits() -> None:
    found, _ = java.find(os.environ)
    assert found is not None
    assert (found.home / "bin" / "java").exists()


def test_without_java_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "11")
    monkeypatch.setattr(java, "MACOS_FINDER", "/nowhere")
    monkeypatch.setattr(apt, "install_one_of", lambda *_: None)
    problem = java.find_or_install({"PATH": str(tmp_path / "bin")}, places=[])
    assert isinstance(problem, str)
    assert f"{tmp_path} is Java 11" in problem
    assert "openjdk-17-jre-headless" in problem
    assert "\n" not in problem


def test_without_java_it_is_installed_where_that_needs_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def install_one_of(*packages: str) -> str:
        asked.extend(packages)
        fake_java(tmp_path / "java-17", "17")
        return packages[0]

    monkeypatch.setattr(java, "MACOS_FINDER", "/nowhere")
    monkeypatch.setattr(apt, "install_one_of", install_one_of)
    found = java.find_or_install({"PATH": "/nowhere"}, places=[str(tmp_path / "*" / "bin" / "java")])
    assert found == java.Java(tmp_path / "java-17", 17)
    assert asked == ["openjdk-17-jre-headless", "openjdk-21-jre-headless"]


def test_apt_takes_the_first_package_that_the_release_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    program(tmp_path / "apt-get", f'echo "$@" >> "{log}"')
    program(tmp_path / "apt-cache", 'test "$2" = openjdk-21-jre-headless')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert apt.install_one_of("openjdk-17-jre-headless", "openjdk-21-jre-headless") == "openjdk-21-jre-headless"
    assert "openjdk-21-jre-headless" in log.read_text()
    assert "openjdk-17" not in log.read_text()


def test_apt_asks_for_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    program(tmp_path / "apt-get", f'touch "{log}"')
    program(tmp_path / "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert apt.install_one_of("openjdk-17-jre-headless") is None
    assert not log.exists()


def test_a_build_of_torch_is_known_by_what_it_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    cuda = venv_with_torch(tmp_path / "a", "2.13.0", "filelock", 'nvidia-cublas==1; platform_system == "Linux"')
    cpu = venv_with_torch(tmp_path / "b", "2.13.0+cpu", "filelock")
    assert torch_build.installed_build("2.13.0", cuda) == "cuda"
    assert torch_build.installed_build("2.13.0", cpu) == "cpu"
    assert torch_build.installed_build("2.14.0", cpu) is None
    assert torch_build.installed_build("2.13.0", tmp_path) is None
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert torch_build.installed_build("2.13.0", cuda) == "cpu"


@pytest.mark.usefixtures("linux")
def test_the_cpu_build_is_first_looked_for_where_pip_looks_anyway(tmp_path: Path) -> None:
    python, log = pip_that_finds(tmp_path, "+cpu")
    assert torch_build.install("2.13.0", "cpu", None, python) is None
    assert log.read_text() == "-m pip install --disable-pip-version-check --no-deps torch==2.13.0+cpu\n"


@pytest.mark.usefixtures("linux")
def test_then_on_the_cpu_index_and_no_other_build_is_ever_asked_for(tmp_path: Path) -> None:
    python, log = pip_that_finds(tmp_path, "nothing")
    problem = torch_build.install("2.13.0", "cpu", None, python)
    assert problem is not None
    assert "TORCH_INDEX" in problem
    assert "\n" not in problem
    calls = log.read_text().splitlines()
    assert [torch_build.CPU_INDEX in call for call in calls] == [False, True]
    assert all("torch==2.13.0+cpu" in call.split() for call in calls)


@pytest.mark.usefixtures("linux")
def test_a_named_index_is_the_only_one_asked(tmp_path: Path) -> None:
    python, log = pip_that_finds(tmp_path, "mirror")
    assert torch_build.install("2.13.0", "cpu", "https://mirror/cpu", python) is None
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.usefixtures("linux")
def test_cuda_is_taken_only_when_asked_for_and_its_size_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python, log = pip_that_finds(tmp_path, "torch===2.13.0")
    assert torch_build.install("2.13.0", "cuda", None, python) is None
    assert "GB" in capsys.readouterr().out
    assert "--no-deps" not in log.read_text()


def test_another_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = program(tmp_path / "my python", 'case "$2" in *exit*) exit 1;; esac; echo is Python 3.10.2')
    done = run_setup(PYTHON=str(old))
    assert done.returncode == 2
    assert done.stderr == f"setup: PYTHON={old} is Python 3.10.2: Nightjar needs Python 3.11, 3.12 or 3.13\n"


def test_a_python_that_does_not_run_is_refused_in_one_line() -> None:
    done = run_setup(PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert done.stderr == "setup: PYTHON=/nowhere/python does not run: Nightjar needs Python 3.11, 3.12 or 3.13\n"


def test_an_unknown_build_of_torch_is_refused_in_one_line() -> None:
    done = run_setup(PYTHON=sys.executable, TORCH="rocm")
    assert done.returncode == 2
    assert done.stderr == "setup: TORCH=rocm is not a build of torch: use TORCH=cpu or TORCH=cuda\n"


def test_a_pin_is_read_from_the_lock() -> None:
    assert setup.pinned("pyspark", Path("requirements/job.txt")) == "4.0.2"
    with pytest.raises(setup.SetupError, match="make lock"):
        setup.pinned("nothing", Path("requirements/job.txt"))
