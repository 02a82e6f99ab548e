"""The archive of classes that `make setup` made, in Spark sessions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.emr import jvm
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.spark

SESSION = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
print(spark.sparkContext.parallelize([1, 2, 3], 1).sum())
"""
FROM_ARCHIVE = "source: shared objects file (top)"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A path for an archive in a folder whose name has all that a shell would take apart."""
    folder = tmp_path / 'a "b\\ c'
    folder.mkdir()
    return folder / "spark.jsa"


def made_by_setup() -> Path:
    made = jvm.archive_path()
    assert made is not None
    assert made.is_file(), "make setup has made no archive: see its output"
    return made


def loaded(archive: Path) -> tuple[str, str]:
    """Run a session with an archive. Return the JVM's log of loaded classes, and what it wrote to stderr."""
    log = archive.parent.parent / "classes.log"
    options = jvm.with_archive(f"{jvm.SMALL_JVM} -Xlog:class+load:file={log}", archive)
    env = {**os.environ, "SPARK_SUBMIT_OPTS": options, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", SESSION], env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.stdout.split() == ["6"], done.stderr
    return log.read_text(), done.stderr


@pytest.mark.long
def test_spark_takes_its_classes_from_the_archive(archive: Path) -> None:
    archive.symlink_to(made_by_setup())
    classes, _ = loaded(archive)
    assert any("org.apache.spark.SparkContext " in line for line in classes.splitlines() if FROM_ARCHIVE in line)


@pytest.mark.long
def test_an_archive_that_does_not_fit_is_ignored_without_a_word(archive: Path) -> None:
    archive.write_bytes(bytes(10_000))
    classes, errors = loaded(archive)
    assert FROM_ARCHIVE not in classes
    assert "org.apache.spark.SparkContext " in classes
    assert not {"cds", "archive", "shared"} & set(errors.lower().replace("[", " ").replace("]", " ").split())


def test_options_are_as_given_without_an_archive(archive: Path) -> None:
    assert jvm.with_archive("-Xss4m", archive) == "-Xss4m"


def test_another_java_has_another_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        java = home / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.touch(mode=0o755)
        assert jvm.archive_path(home) is None  # it does not say its release
        (home / "release").write_text(f'JAVA_VERSION="17.0.1"\nIMPLEMENTOR="{home.name}"\n')
    found = {jvm.archive_path(home) for home in homes}
    assert len(found - {None, jvm.archive_path()}) == 2
    monkeypatch.setenv("JAVA_HOME", str(homes[0]))
    assert jvm.archive_path() == jvm.archive_path(homes[0])
    assert jvm.with_archive("-Xss4m") == "-Xss4m"


def test_an_archive_is_tried_before_it_is_in_its_place(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = []

    def run_session(options: str) -> None:
        assert not archive.exists()
        (folder,) = archive.parent.iterdir()
        if not sessions:
            (folder / archive.name).touch()
        sessions.append(options)

    monkeypatch.setattr(jvm, "_run_session", run_session)
    jvm.make_archive(archive)
    assert list(archive.parent.iterdir()) == [archive]
    assert ["SharedArchiveFile" in options for options in sessions] == [False, True]


def test_a_java_that_writes_no_archive_leaves_nothing(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jvm, "_run_session", lambda _: None)
    with pytest.raises(jvm.ArchiveError, match="Java ended without writing the archive"):
        jvm.make_archive(archive)
    assert list(archive.parent.iterdir()) == []


def test_a_java_that_does_not_start_is_one_line(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(archive.parent))
    with pytest.raises(jvm.ArchiveError, match=r"\A.*JAVA_GATEWAY_EXITED.*\Z"):
        jvm.make_archive(archive)
    assert list(archive.parent.iterdir()) == []
