"""The JVM of a Spark step on this machine: its options, and an archive of the classes that it loads.

A step of a few seconds spends most of its time in starting its JVM, which loads 10,000 classes and compiles them. With
its first compiler alone it compiles less. With an archive of loaded classes, which is a feature of Java ("class data
sharing"), it neither unpacks nor verifies them. `make setup` and the image of docker-compose make the archive:

    JAVA_HOME="$(cat .venv/java_home)" .venv/bin/python -m infra.emr.jvm

The name of an archive says which Spark and which Java made it, and others do not use it. A JVM that is given an archive
that does not fit starts without Java's own archive as well, and takes longer than with none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

SMALL_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options with which a step of a few seconds takes half the CPU time: one compiler, and a collector of one thread."""

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


def java_home() -> Path | None:
    """Return the folder of the Java that Spark starts: that of JAVA_HOME, else of the `java` in PATH."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    return Path(found).resolve().parents[1] if found else None


def archive_path(home: Path | None = None) -> Path | None:
    """Return the place of the archive for this Spark and the Java in `home`, by default the one that Spark starts.

    There is none without pyspark, or for a Java that does not say its release.
    """
    home = home or java_home()
    try:
        spark = metadata.version("pyspark")
        release = (home / "release").read_bytes() if home else b""
    except (OSError, metadata.PackageNotFoundError):
        return None
    name = f"spark-{spark}-java-{hashlib.sha256(release).hexdigest()[:12]}.jsa"
    return Path(sys.prefix) / name if release else None


def with_archive(options: str, archive: Path | None = None) -> str:
    """Return the options of a JVM with those that make it read the archive, if there is one.

    The JVM prints nothing if it rejects the archive.
    """
    archive = archive or archive_path()
    return _with_file(options, "SharedArchiveFile", archive) if archive and archive.is_file() else options


def make_archive(archive: Path) -> None:
    """Make the archive from a Spark session with one job, and try it in another. It takes half a minute.

    Raises:
        ArchiveError: if this Java makes none, or if Spark does not run with it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="spark-", dir=archive.parent) as folder:
            new = Path(folder) / archive.name
            _run_session(_with_file(SMALL_JVM, "ArchiveClassesAtExit", new))
            if not new.is_file():
                raise ArchiveError("this Java writes none")
            _run_session(with_archive(SMALL_JVM, new))
            new.replace(archive)
    except OSError as error:
        raise ArchiveError(str(error)) from error


def _with_file(options: str, name: str, archive: Path) -> str:
    path = str(archive).replace("\\", "\\\\").replace('"', '\\"')
    return f'{options} -XX:{name}="{path}" -Xlog:cds*=off'.strip()


def _run_session(options: str) -> None:
    """Run a Spark session, and wait until its JVM has ended, too: it writes the archive last, when Python has ended.

    The JVM has the session's output open until then.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}
    environment |= {"SPARK_SUBMIT_OPTS": options, "SPARK_LOCAL_IP": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, "-c", _SESSION],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as session:
        try:
            printed, errors = session.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(session.pid, signal.SIGKILL)
            raise ArchiveError(f"a Spark session did not end in {_SECONDS} s") from None
    if printed.split()[-1:] != [_RESULT]:
        lines = (errors or printed).strip().splitlines()
        raise ArchiveError(lines[-1] if lines else f"a Spark session ended with exit code {session.returncode}")


def main() -> int:
    """Make the archive, and delete earlier ones. Print one line if that fails; the exit code stays 0."""
    try:
        archive = archive_path()
        if archive is None:
            raise ArchiveError("pyspark is not installed, or Java does not say its release")
        make_archive(archive)
    except ArchiveError as error:
        sys.stderr.write(
            f"Spark's JVM starts without an archive of its classes, and so more slowly: {error}. To try again:"
            " python -m infra.emr.jvm\n"
        )
        return 0
    for earlier in archive.parent.glob("spark-*.jsa"):
        if earlier != archive:
            earlier.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
