"""The search for Java and its installation, with programs that answer as the real ones do."""

import os
from pathlib import Path

import pytest

from infra.setup import apt, java
from infra.setup.packages import SetupError
from tests.infra.setup.programs import program

pytestmark = pytest.mark.slow


def fake_java(home: Path, version: str) -> Path:
    """Write a program that prints what ``java -XshowSettings:properties -version`` prints, on stderr."""
    lines = f"Picked up JAVA_TOOL_OPTIONS: -Dx\\n    java.home = {home}\\n    java.specification.version = {version}\\n"
    return program(home / "bin" / "java", f"printf '{lines}' >&2")


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    home, other = tmp_path / "java 21", tmp_path / "java 17"
    fake_java(home, "21")
    fake_java(other, "17")
    found, rejected = java.find({"JAVA_HOME": str(home), "PATH": str(other / "bin")}, patterns=[])
    assert found == java.Java(home, 21)
    assert rejected == []


@pytest.mark.parametrize("version", ["1.8", "11", "25"])
def test_a_java_of_another_version_is_rejected_for_one_in_the_usual_places(tmp_path: Path, version: str) -> None:
    fake_java(tmp_path / "wrong", version)
    fake_java(tmp_path / "jvm" / "java-17", "17")
    environment = {"JAVA_HOME": str(tmp_path / "wrong"), "PATH": "/nowhere"}
    found, rejected = java.find(environment, patterns=[str(tmp_path / "jvm" / "*" / "bin" / "java")])
    assert found == java.Java(tmp_path / "jvm" / "java-17", 17)
    assert [other.version for other in rejected] == [int(version.removeprefix("1."))]


def test_a_stub_that_prints_an_error_is_not_java(tmp_path: Path) -> None:
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
    with pytest.raises(SetupError) as caught:
        java.find_or_install({"PATH": str(tmp_path / "bin")}, patterns=[])
    problem = str(caught.value)
    assert f"{tmp_path} is Java 11" in problem
    assert "openjdk-17-jre-headless" in problem
    assert "\n" not in problem


def test_without_java_it_is_installed_if_that_needs_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def install_one_of(*packages: str) -> str:
        asked.extend(packages)
        fake_java(tmp_path / "java-17", "17")
        return packages[0]

    monkeypatch.setattr(java, "MACOS_FINDER", "/nowhere")
    monkeypatch.setattr(apt, "install_one_of", install_one_of)
    found = java.find_or_install({"PATH": "/nowhere"}, patterns=[str(tmp_path / "*" / "bin" / "java")])
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
