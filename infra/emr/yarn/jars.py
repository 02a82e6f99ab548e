"""Hadoop's jars, each with a pinned hash: found in folders of this machine, or downloaded from Maven Central."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.errors import InputError

VARIABLE = "NIGHTJAR_HADOOP_JARS"
"""Environment variable with a list of folders that contain the jars. The separator is that of PATH."""
REPOSITORY = "https://repo1.maven.org/maven2"
CACHE = Path(__file__).resolve().parents[3] / ".cache" / "hadoop"
_COORDINATES = Path(__file__).with_name("coordinates.tsv")
_CLIENT = "hadoop-client-api-"
_HADOOP = "org.apache.hadoop"
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Jar:
    """A pinned jar."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def url(self) -> str:
        """The URL of the jar at Maven Central."""
        return f"{REPOSITORY}/{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"

    @cached_property
    def coordinate(self) -> str:
        """Group, artifact and version, as Maven writes them."""
        return f"{self.group}:{self.artifact}:{self.version}"

    def check(self, path: Path) -> Path:
        """Return `path` if the file there has the hash of this jar. Otherwise raise an `InputError`."""
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise InputError(
                f"{path}: has the sha256 {found}, not {self.sha256} of {self.coordinate}; delete it, and get it again"
            )
        return path


def client_version(spark_home: Path) -> str:
    """Return the version of the Hadoop client that a Spark installation contains."""
    found = sorted((spark_home / "jars").glob(f"{_CLIENT}*.jar"))
    if not found:
        raise InputError(f"{spark_home / 'jars'}: has no {_CLIENT}*.jar; install pyspark with Hadoop's client")
    return found[-1].stem.removeprefix(_CLIENT)


def pinned(version: str) -> tuple[Jar, ...]:
    """Return the jars that YARN of Hadoop `version` needs. Raise an `InputError` if none are pinned for it."""
    lines = [line for line in _COORDINATES.read_text("utf-8").splitlines() if not line.startswith("#")]
    jars = [_read(line) for line in lines]
    known = sorted({jar.version for jar in jars if jar.group == _HADOOP})
    if version not in known:
        raise InputError(
            f"the installed Spark has the client of Hadoop {version}, but this project only pins the jars of"
            f" {' and '.join(known)} ({_COORDINATES.name}); install a version of pyspark named in docs/guides/aws.md"
        )
    return tuple(jar for jar in jars if jar.group != _HADOOP or jar.version == version)


def _read(line: str) -> Jar:
    coordinate, sha256, size = line.split()
    group, artifact, version = coordinate.split(":")
    return Jar(group, artifact, version, sha256, int(size))


def provide(version: str, cache: Path = CACHE) -> tuple[Path, ...]:
    """Return the absolute paths of the jars that YARN needs, from the folders in `VARIABLE` or the cache.

    Missing jars are downloaded into the cache if `VARIABLE` is not set.

    Raises:
        InputError: if a jar cannot be found or downloaded, or has another hash. The message says how to get the jars.
    """
    jars = pinned(version)
    # Absolute, because the daemons that read the jars run in other folders.
    folders = [Path(folder).absolute() for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{VARIABLE}: {folder} is not a folder; name the folder that has Hadoop's jars")
    found = {jar: path for jar in jars if (path := _find(jar, [*folders, cache])) is not None}
    missing = [jar for jar in jars if jar not in found]
    if missing and folders:
        raise InputError(
            f"{VARIABLE}: {os.pathsep.join(map(str, folders))} lacks {len(missing)} of {len(jars)} jars, the first is"
            f" {missing[0].name}; {_advice(version)}"
        )
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda jar: _fetch(jar, cache, version), missing))
    found |= dict(zip(missing, fetched, strict=True))
    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(lambda jar: jar.check(found[jar]), jars))


def _find(jar: Jar, folders: Iterable[Path]) -> Path | None:
    return next((folder / jar.name for folder in folders if (folder / jar.name).is_file()), None)


def _fetch(jar: Jar, cache: Path, version: str) -> Path:
    """Download a jar into the cache. It appears there only when it is complete and has the right hash."""
    path = cache / jar.name
    part = path.with_name(f"{jar.name}.{os.getpid()}.part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(jar.url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - https, see REPOSITORY
            part.write_bytes(answer.read(jar.size + 1))
        jar.check(part).replace(path)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{jar.coordinate}: cannot download {jar.url}: {reason}; {_advice(version)}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _advice(version: str) -> str:
    total = sum(jar.size for jar in pinned(version)) >> 20
    return (
        f"YARN needs the {len(pinned(version))} jars ({total} MB) that infra/emr/yarn/coordinates.tsv lists: allow"
        f" this machine to reach {REPOSITORY}, or copy them into a folder and set {VARIABLE} to it"
    )


def classpath(parts: Sequence[Path | str]) -> str:
    """Return these paths as a class path for Java."""
    return os.pathsep.join(map(str, parts))
