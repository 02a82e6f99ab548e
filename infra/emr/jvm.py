"""The JVM of a Spark step on this machine: its options, and a class-data archive of the classes that it loads.

A step of a few seconds spends most of its time in starting its JVM, which loads 10,000 classes and compiles them. Two
things save time. With only the first of its two compilers, the JVM compiles less. A class-data archive (Java's "class
data sharing", CDS) contains classes as the JVM keeps them in memory, already unpacked and verified. `make setup` and
the image of docker-compose make the archive:

    JAVA_HOME="$(cat .venv/java_home)" .venv/bin/python -m infra.emr.jvm

The name of an archive contains the version of Spark and a hash of Java's file `release`. So the archive is
only used with this version of Spark and this Java. With an archive of another version, the JVM would also ignore the
archive that comes with Java, and start more slowly than without any option.
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
"""JVM options that halve the CPU time of a step of a few seconds: one compiler, a single-threaded garbage collector."""

_SESSION = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
print(spark.sparkContext.parallelize(range(10), 2).map(lambda number: number * number).sum())
spark.stop()
"""
_RESULT = "285"
_SECONDS = 300


class ArchiveError(Exception):
    """The class-data archive could not be made. Steps run without an archive."""


def java_home() -> Path | None:
    """Return the home folder of the Java that Spark starts: from JAVA_HOME if set, else from PATH.

    Return None if there is no Java.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    return Path(found).resolve().parents[1] if found else None


def archive_path(home: Path | None = None) -> Path | None:
    """Return the path of the class-data archive for the installed Spark and the Java in `home`.

    The default of `home` is the Java that Spark starts.

    Return None if pyspark is not installed, or if there is no Java with a file `release`.
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
    """Return the JVM options `options`. If the class-data archive exists, add options that make the JVM use it.

    A JVM that rejects the archive does not print a warning.
    """
    archive = archive or archive_path()
    return _with_file(options, "SharedArchiveFile", archive) if archive and archive.is_file() else options


def make_archive(archive: Path) -> None:
    """Make the class-data archive in a Spark session with one job, and test it in a second session.

    This takes half a minute.

    Raises:
        ArchiveError: if Java does not write the archive, or if Spark does not run with it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="spark-", dir=archive.parent) as folder:
            new = Path(folder) / archive.name
            _run_session(_with_file(SMALL_JVM, "ArchiveClassesAtExit", new))
            if not new.is_file():
                raise ArchiveError("Java ended without writing the archive; use another version of Java")
            _run_session(with_archive(SMALL_JVM, new))
            new.replace(archive)
    except OSError as error:
        raise ArchiveError(str(error)) from error


def _with_file(options: str, name: str, archive: Path) -> str:
    path = str(archive).replace("\\", "\\\\").replace('"', '\\"')
    return f'{options} -XX:{name}="{path}" -Xlog:cds*=off'.strip()


def _run_session(options: str) -> None:
    """Run a Spark session, and wait until its JVM has ended as well.

    The JVM writes the archive after Python has ended, and keeps the session's output open until then. So this function
    waits by reading the output to its end.
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
            raise ArchiveError(f"a Spark session with this archive did not end within {_SECONDS} s") from None
    if printed.split()[-1:] != [_RESULT]:
        lines = (errors or printed).strip().splitlines()
        raise ArchiveError(lines[-1] if lines else f"a Spark session ended with exit code {session.returncode}")


def main() -> int:
    """Make the class-data archive, and delete earlier archives. Return 0 in all cases.

    If the archive cannot be made, print one line that says why.
    """
    try:
        archive = archive_path()
        if archive is None:
            raise ArchiveError("pyspark is not installed, or Java is missing, or its folder has no file 'release'")
        make_archive(archive)
    except ArchiveError as error:
        sys.stderr.write(
            f"the class-data archive of Spark (CDS) was not made, so JVMs start more slowly: {error}; to try again, run"
            " python -m infra.emr.jvm\n"
        )
        return 0
    for earlier in archive.parent.glob("spark-*.jsa"):
        if earlier != archive:
            earlier.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
