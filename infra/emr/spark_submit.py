"""Translate a `spark-submit` command for YARN into one for this machine. All functions are pure.

Options that place an application on YARN, such as the queue, are removed. The number and size of executors become
part of the local master. All other configuration stays, because the application can read it. Each S3 or `file:`
URI is replaced by the relative name of a copy in the step's working directory.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import NightjarError
from jobs.lake.names import is_plain
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
YARN_CONF = (
    r"spark\.(master|submit\.deployMode|yarn\..*|dynamicAllocation\..*|shuffle\.service\..*|driver\.cores"
    r"|pyspark\.(driver\.)?python|executorEnv\.PYSPARK_(DRIVER_)?PYTHON|executor\.(instances|memoryOverhead.*))"
)
ONE_JVM_CONF = r"spark\.executor\.(cores|memory|pyspark\.memory)"
# Encryption needs a secret for each application. With a YARN or local master, Spark generates the secret. With
# `local-cluster`, the secret would be in the configuration, where anyone could read it. So encryption is off for
# `local-cluster`, whose processes only communicate over loopback.
ENCRYPTION_CONF = r"spark\.(authenticate|network\.crypto\.\w+|io\.encryption\.enabled)"

AM_MEGABYTES = 512 + 384
"""MB of memory that YARN gives to the application master of an application in client mode."""

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
    """The files to download for a step, each with a unique local name."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}

    def local(self, uri: str) -> str:
        """Return the local name for `uri`, or `uri` itself if it is not an S3 or `file:` URI."""
        if not uri.startswith(("file:", "s3://", "s3a://", "s3n://")):
            return uri
        if uri not in self._paths:
            name = base_name(to_uri(uri))
            if not is_plain(name) or "/" in name:  # an encoded slash
                raise CommandError(f"{uri}: the last part is not a valid file name; rename the file")
            taken = name in self._paths.values()
            self._paths[uri] = f"{len(self._paths)}/{name}" if taken else name
        return self._paths[uri]

    def local_list(self, uris: str) -> str:
        """Replace each URI in a comma-separated list with its local name. A URI may have an `#alias`, which stays."""
        parts = (uri.strip().partition("#") for uri in uris.split(",") if uri.strip())
        return ",".join(self.local(uri) + mark + alias for uri, mark, alias in parts)

    def all(self) -> tuple[Download, ...]:
        """Return the downloads collected so far."""
        return tuple(Download(uri, path) for uri, path in self._paths.items())


def parse(args: Iterable[str]) -> Submit:
    """Parse the arguments after `spark-submit`. Raise a `CommandError` if they are incomplete."""
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
        raise CommandError("spark-submit: the application is missing; name a .py file or a jar after the options")
    submit.app = rest
    return submit


@dataclass(frozen=True)
class Engine:
    """A way of executing Spark applications."""

    master: Callable[[Mapping[str, str]], str]
    """A function that returns the Spark master for an application's configuration."""
    dropped: frozenset[str]
    """Options of `spark-submit` that this engine does not need. They are removed."""
    unused: re.Pattern[str]
    """Configuration keys that this engine does not need. They are removed."""
    own_jvms: bool
    """Whether executors are processes. Such executors need JVM options, and write to a folder in Spark's home."""


@dataclass(frozen=True)
class SparkCluster:
    """The settings that a cluster adds to the commands of its Spark applications."""

    defaults: Mapping[str, str]
    """The cluster's `spark-defaults`. A step's own settings override them."""
    spark_home: Path
    """Folder of the Spark installation."""
    java_options: str
    """JVM options for the driver, and for executors with a JVM of their own. A step can override them."""
    worker_megabytes: tuple[int, ...] = ()
    """MB of memory for executors on each worker. Executors that do not fit are not started. If empty, all fit."""


def localize(args: Iterable[str], cluster: SparkCluster, engine: Engine) -> tuple[list[str], tuple[Download, ...]]:
    """Return the command that runs a step's Spark application on this machine, and the files to download first.

    Args:
        args: The step's arguments after `spark-submit`.
        cluster: The cluster that the step runs on.
        engine: The way to execute the application.

    Raises:
        CommandError: if the command is incomplete, a size in it is not a number, or an executor does not fit.
    """
    step = parse(args)
    sizes = {SIZES[name]: value for name, value in step.options if name in SIZES}
    conf = {**cluster.defaults, **step.conf, **sizes}
    if cluster.java_options and "--driver-java-options" not in dict(step.options):
        conf.setdefault("spark.driver.extraJavaOptions", cluster.java_options)
    if cluster.java_options and engine.own_jvms:
        conf.setdefault("spark.executor.extraJavaOptions", cluster.java_options)
    if cluster.worker_megabytes:
        room = fitting_executors(conf, cluster.worker_megabytes)
        conf["spark.executor.instances"] = str(min(executors(conf), max(1, room)))
    files = Downloads()
    argv = [str(cluster.spark_home / "bin" / "spark-submit"), "--master", engine.master(conf)]
    argv += [flag for flag in step.flags if flag != "--supervise"]
    for name, value in step.options:
        if name not in engine.dropped and name not in SIZES:
            argv += [name, files.local_list(value) if name in FILE_OPTIONS else value]
    for key, value in conf.items():
        if not engine.unused.fullmatch(key):
            argv += ["--conf", f"{key}={files.local_list(value) if key in FILE_CONF else value}"]
    app, *app_args = step.app
    return [*argv, files.local(app), *app_args], files.all()


def fitting_executors(conf: Mapping[str, str], worker_megabytes: Iterable[int]) -> int:
    """Return how many executors of an application fit on the workers. As in YARN, only memory counts.

    Raises:
        CommandError: if an executor does not even fit on the largest worker. The message is the one that Spark prints.
    """
    memory = _megabytes(conf, "spark.executor.memory", "1g")
    factor = float(conf.get("spark.executor.memoryOverheadFactor", "0.1"))
    overhead = _megabytes(conf, "spark.executor.memoryOverhead", f"{max(384, int(memory * factor))}m")
    python = _megabytes(conf, "spark.executor.pyspark.memory", "0m")
    largest, *others = sorted(worker_megabytes, reverse=True)
    container = memory + overhead + python
    if container > largest:
        raise CommandError(
            f"Required executor memory ({memory} MB), offHeap memory (0) MB, overhead ({overhead} MB), and PySpark"
            f" memory ({python} MB) is above the max threshold ({largest} MB) of this cluster! Please check the values"
            " of 'yarn.scheduler.maximum-allocation-mb' and/or 'yarn.nodemanager.resource.memory-mb'."
        )
    *rest, master_node = [largest, *others]
    return sum(each // container for each in rest) + max(0, master_node - AM_MEGABYTES) // container


def _local_master(conf: Mapping[str, str]) -> str:
    """Return a local Spark master with as many slots as all executors in `conf` together, but at least two.

    The master `local[n]` would not retry failed tasks. `local[n,4]` allows a task four attempts, as a cluster does.
    """
    slots = max(2, executors(conf) * _number(conf, "spark.executor.cores", 1))
    return f"local[{slots},{_number(conf, 'spark.task.maxFailures', 4)}]"


def _local_cluster_master(conf: Mapping[str, str]) -> str:
    cores, memory = _number(conf, "spark.executor.cores", 1), _megabytes(conf, "spark.executor.memory", "1g")
    return f"local-cluster[{executors(conf)},{cores},{memory}]"


ENGINES: Mapping[str, Engine] = {
    "threads": Engine(_local_master, YARN_OPTIONS, re.compile(f"{YARN_CONF}|{ONE_JVM_CONF}"), own_jvms=False),
    "processes": Engine(
        _local_cluster_master, YARN_OPTIONS, re.compile(f"{YARN_CONF}|{ENCRYPTION_CONF}"), own_jvms=True
    ),
}


def find_engine(name: str) -> Engine:
    """Return the engine called `name`. Raise a `CommandError` if there is none."""
    if name not in ENGINES:
        raise CommandError(f"executors must be {', '.join(ENGINES)} or yarn, not {name}")
    return ENGINES[name]


def executors(conf: Mapping[str, str]) -> int:
    """Return the number of executors that `conf` requests, by default 2."""
    return _number(conf, "spark.executor.instances", 2)


def _number(conf: Mapping[str, str], key: str, default: int) -> int:
    value = conf.get(key, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise CommandError(f"{key}={value} is not a whole number above 0")
    return int(value)


def _megabytes(conf: Mapping[str, str], key: str, default: str) -> int:
    size = conf.get(key, default)
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", size.strip().lower())
    if match is None:
        raise CommandError(f"{key}={size} is not a size such as 512m or 2g")
    return round(int(match[1]) * _UNITS[match[2] or "m"])
