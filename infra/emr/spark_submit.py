"""Translate a `spark-submit` command for YARN into one for this machine. Pure functions.

Options that place and size an application on YARN are removed. Options that the program itself sees stay: its other
configuration, the driver's memory, Spark's UI. Files at `s3://` and `file://` URIs are replaced by relative names of
copies in the step's working directory.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import NightjarError
from jobs.lake.uri import base_name, to_uri

FLAGS = frozenset({"--verbose", "-v", "--supervise", "--version", "--help", "-h", "--usage-error"})
FILE_OPTIONS = frozenset({"--py-files", "--files", "--archives", "--jars", "--properties-file"})
FILE_CONF = frozenset({"spark.submit.pyFiles", "spark.files", "spark.archives", "spark.jars"})
SIZES = {
    "--num-executors": "spark.executor.instances",
    "--executor-cores": "spark.executor.cores",
    "--executor-memory": "spark.executor.memory",
}
YARN_OPTIONS = frozenset(
    {"--master", "--deploy-mode", "--queue", "--driver-cores", "--total-executor-cores", "--principal", "--keytab"}
)
YARN_CONF = re.compile(
    r"spark\.(master|submit\.deployMode|yarn\..*|dynamicAllocation\..*|shuffle\.service\..*|driver\.cores"
    r"|pyspark\.(driver\.)?python|executorEnv\.PYSPARK_(DRIVER_)?PYTHON|executor\.(instances|memoryOverhead.*))"
)
ONE_JVM_CONF = re.compile(r"spark\.executor\.(cores|memory|pyspark\.memory)")
# YARN and a local master generate the secret of an application. A local cluster needs it in its configuration, where
# anyone could read it. So encryption is off there; its processes only communicate over loopback.
SECRET_CONF = re.compile(r"spark\.(authenticate|network\.crypto\.\w+|io\.encryption\.enabled)")

_UNITS = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


class CommandError(NightjarError):
    """The command of a step is incomplete, or the embedded EMR cannot run it."""


@dataclass(frozen=True)
class Download:
    """A file to download, and its name in the step's working directory."""

    uri: str
    path: str


@dataclass
class Submit:
    """The parts of a `spark-submit` command."""

    options: list[tuple[str, str]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    conf: dict[str, str] = field(default_factory=dict)
    app: list[str] = field(default_factory=list)
    """The application and its arguments."""


class Downloads:
    """The files that a step needs, each with a unique local name."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}

    def local(self, uri: str) -> str:
        """Return the local name for `uri`, or `uri` itself if it is not at `s3://` or `file://`."""
        if not uri.startswith(("file:", "s3://", "s3a://", "s3n://")):
            return uri
        if uri not in self._paths:
            name = base_name(to_uri(uri))
            taken = name in self._paths.values()
            self._paths[uri] = f"{len(self._paths)}/{name}" if taken else name
        return self._paths[uri]

    def local_list(self, uris: str) -> str:
        """Return the local names for a comma-separated list of URIs, each with an optional `#alias`."""
        parts = (uri.strip().partition("#") for uri in uris.split(",") if uri.strip())
        return ",".join(self.local(uri) + mark + alias for uri, mark, alias in parts)

    def all(self) -> tuple[Download, ...]:
        """Return the downloads collected so far."""
        return tuple(Download(uri, path) for uri, path in self._paths.items())


def parse(args: Iterable[str]) -> Submit:
    """Parse the arguments after `spark-submit`. Incomplete ones are a `CommandError`."""
    submit, rest = Submit(), list(args)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).partition("=")
        if name in FLAGS:
            submit.flags.append(name)
            continue
        if not equals:
            if not rest:
                raise CommandError(f"spark-submit: {name} has no value")
            value = rest.pop(0)
        if name in {"--conf", "-c"}:
            key, equals, value = value.partition("=")
            if not equals:
                raise CommandError(f"spark-submit: --conf {key} is not KEY=VALUE")
            submit.conf[key.strip()] = value
        else:
            submit.options.append((name, value))
    if not rest:
        raise CommandError("spark-submit: the application is missing")
    submit.app = rest
    return submit


def localize(
    args: Iterable[str], defaults: Mapping[str, str], spark_home: Path, executors: str, java_options: str
) -> tuple[list[str], tuple[Download, ...]]:
    """Return the command that runs a step's Spark application on this machine, and the files to download first.

    Args:
        args: The step's arguments after `spark-submit`.
        defaults: The cluster's `spark-defaults`. The step's own settings override them.
        spark_home: Folder of the Spark installation.
        executors: `threads` of the driver's JVM, or `processes` with a JVM each.
        java_options: JVM options for the driver, and for executors that are processes, unless the step sets its own.

    Raises:
        CommandError: if the command is incomplete or a size in it is not a number.
    """
    step = parse(args)
    conf = {**defaults, **step.conf, **{SIZES[name]: value for name, value in step.options if name in SIZES}}
    if java_options and "--driver-java-options" not in dict(step.options):
        conf.setdefault("spark.driver.extraJavaOptions", java_options)
    if java_options and executors == "processes":
        conf.setdefault("spark.executor.extraJavaOptions", java_options)
    files = Downloads()
    argv = [str(spark_home / "bin" / "spark-submit"), "--master", master(conf, executors)]
    argv += [flag for flag in step.flags if flag != "--supervise"]
    for name, value in step.options:
        if name not in YARN_OPTIONS and name not in SIZES:
            argv += [name, files.local_list(value) if name in FILE_OPTIONS else value]
    foreign = ONE_JVM_CONF if executors == "threads" else SECRET_CONF
    for key, value in conf.items():
        if not YARN_CONF.fullmatch(key) and not foreign.fullmatch(key):
            argv += ["--conf", f"{key}={files.local_list(value) if key in FILE_CONF else value}"]
    app, *app_args = step.app
    return [*argv, files.local(app), *app_args], files.all()


def master(conf: Mapping[str, str], executors: str) -> str:
    """Return the Spark master with as many slots as `conf` declares, but at least two.

    With `local[n]` a task has one attempt; `local[n,4]` gives it four, as on a cluster.
    """
    instances, cores = _number(conf, "spark.executor.instances", 2), _number(conf, "spark.executor.cores", 1)
    if executors == "processes":
        return f"local-cluster[{instances},{cores},{_megabytes(conf.get('spark.executor.memory', '1g'))}]"
    if executors == "threads":
        return f"local[{max(2, instances * cores)},{_number(conf, 'spark.task.maxFailures', 4)}]"
    raise CommandError(f"executors must be threads or processes, not {executors}")


def _number(conf: Mapping[str, str], key: str, default: int) -> int:
    value = conf.get(key, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise CommandError(f"{key}={value} is not a whole number above 0")
    return int(value)


def _megabytes(size: str) -> int:
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", size.strip().lower())
    if match is None:
        raise CommandError(f"spark.executor.memory={size} is not a size such as 512m or 2g")
    return max(1, round(int(match[1]) * _UNITS[match[2] or "m"]))
