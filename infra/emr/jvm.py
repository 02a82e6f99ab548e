"""The JVM of a Spark step on this machine: its options, and an archive of the classes that it loads.

A step of a few seconds spends most of its time in starting its JVM, which loads 10,000 classes and compiles them. With
its first compiler alone it compiles less. With an archive of loaded classes, which is a feature of Java ("class data
sharing"), it neither unpacks nor verifies them. `make setup` and the image of docker-compose make the archive:

    .venv/bin/python -m infra.emr.jvm

A JVM ignores an archive that another Java or another Spark made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SMALL_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options with which a step of a few seconds takes half the CPU time: one compiler, and a collector of one thread."""
ARCHIVE = Path(sys.prefix) / "spark.jsa"
"""The archive of classes. It belongs to the Spark of this Python environment."""

_SESSION = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
print(spark.sparkContext.parallelize(range(10), 2).map(lambda number: number * number).sum())
spark.stop()
"""
_RESULT = "285"
_SECONDS = 300


class ArchiveError(Exception):
    """No archive could be made. Steps run without it."""


def with_archive(options: str, archive: Path = ARCHIVE) -> str:
    """Return the options of a JVM with those that make it read the archive, if there is one. It does so silently."""
    return _with_file(options, "SharedArchiveFile", archive) if archive.is_file() else options


def make_archive(archive: Path = ARCHIVE) -> None:
    """Make the archive from a Spark session with one job, and try it in another. It takes half a minute.

    Raises:
        ArchiveError: if this Java makes none, or if Spark does not run with it.
    """
    new = archive.with_name(f"{archive.name}.new")
    new.unlink(missing_ok=True)
    try:
        _run_session(_with_file(SMALL_JVM, "ArchiveClassesAtExit", new))
        if not new.is_file():
            raise ArchiveError("this Java writes none")
        _run_session(with_archive(SMALL_JVM, new))
        new.replace(archive)
    finally:
        new.unlink(missing_ok=True)


def _with_file(options: str, name: str, archive: Path) -> str:
    path = str(archive).replace("\\", "\\\\").replace('"', '\\"')
    return f'{options} -XX:{name}="{path}" -Xlog:cds=off -Xlog:cds+dynamic=off'.strip()


def _run_session(options: str) -> None:
    foreign = ("SPARK_", "PYSPARK_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment |= {"SPARK_SUBMIT_OPTS": options, "SPARK_LOCAL_IP": "127.0.0.1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SESSION],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ArchiveError(str(error)) from error
    if done.stdout.split()[-1:] != [_RESULT]:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ArchiveError(lines[-1] if lines else f"a Spark session ended with exit code {done.returncode}")


def main() -> int:
    """Make the archive. Where that fails, print one line; it is no error, as steps then only start more slowly."""
    try:
        make_archive()
    except ArchiveError as error:
        sys.stderr.write(f"Spark's JVM starts without an archive of its classes: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
