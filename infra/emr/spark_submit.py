"""Rewrites a `spark-submit` command that was written for YARN into one for this machine. Pure: it touches nothing.

What sizes and places a YARN application goes; what the program itself sees (its other configuration, driver memory,
Spark's UI) stays as the step says. Files at `s3://` and `file://` become copies in the step's working directory, named
relatively.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.emr.store import base_name, is_stored
from jobs.errors import NightjarError

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
# YARN and a local master make a secret for each application; a local cluster wants it in its configuration, which is
# no place for one. Its processes talk over loopback.
SECRET_CONF = re.compile(r"spark\.(authenticate|network\.crypto\.\w+|io\.encryption\.enabled)")

_UNITS = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


class CommandError(NightjarError):
    """The command of a step is incomplete, or the embedded EMR cannot run it."""


@dataclass(frozen=True)
class Download:
    """A file that a step needs: where it is, and its name in the step's working directory."""

    uri: str
    path: str


@dataclass
class Submit:
    """A `spark-submit` command in its parts."""

    options: list[tuple[str, str]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    conf: dict[str, str] = field(default_factory=dict)
    app: list[str] = field(default_factory=list)
    """The application and its arguments."""


class Downloads:
    """Collects the files of a step, and gives each a name of its own."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}

    def local(self, uri: str) -> str:
        """The name that `uri` will have, or `uri` itself if it is not for us to copy."""
        if not is_stored(uri):
            return uri
        if uri not in self._paths:
            name = base_name(uri)
            taken = name in self._paths.values()
            self._paths[uri] = f"{len(self._paths)}/{name}" if taken else name
        return self._paths[uri]

    def local_list(self, uris: str) -> str:
        """The same for a list with commas, each with or without a `#alias`."""
        parts = (uri.strip().partition("#") for uri in uris.split(",") if uri.strip())
        return ",".join(self.local(uri) + mark + alias for uri, mark, alias in parts)

    def all(self) -> tuple[Download, ...]:
        """What has been asked for so far."""
        return tuple(Download(uri, path) for uri, path in self._paths.items())


def parse(args: Iterable[str]) -> Submit:
    """Takes the arguments after `spark-submit` apart.

    Raises:
        CommandError: They are not complete.
    """
    submit = Submit()
    rest = list(args)
    while rest and rest[0].startswith("-"):
        name, mark, value = rest.pop(0).partition("=")
        if name in FLAGS:
            submit.flags.append(name)
            continue
        if not mark:
            if not rest:
                raise CommandError(f"spark-submit: {name} has no value")
            value = rest.pop(0)
        if name in {"--conf", "-c"}:
            key, mark, value = value.partition("=")
            if not mark:
                raise CommandError(f"spark-submit: --conf {key} is not KEY=VALUE")
            submit.conf[key.strip()] = value
        else:
            submit.options.append((name, value))
    if not rest:
        raise CommandError("spark-submit: no application given")
    submit.app = rest
    return submit


def localize(
    args: Iterable[str],
    defaults: Mapping[str, str],
    spark_home: Path,
    executors: str,
    java_options: str,
) -> tuple[list[str], tuple[Download, ...]]:
    """Makes the command that runs a step's Spark application here.

    Args:
        args: What the step has after `spark-submit`.
        defaults: The cluster's `spark-defaults`, which the step's own settings override.
        spark_home: Where Spark is installed.
        executors: `threads` of one JVM, or `processes`: a JVM for each.
        java_options: JVM options of the driver, and of executors that are processes, if the step brings none.

    Returns:
        The command, and the files to be copied to the working directory first.

    Raises:
        CommandError: The step's command is not complete, or a size in it is no number.
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
    """The Spark master that has the slots which `conf` declares, at least two.

    `local[n]` gives a task one attempt; `local[n,4]` gives it the four that a cluster does.
    """
    instances, cores = _number(conf, "spark.executor.instances", 2), _number(conf, "spark.executor.cores", 1)
    if executors == "processes":
        return f"local-cluster[{instances},{cores},{_megabytes(conf.get('spark.executor.memory', '1g'))}]"
    if executors == "threads":
        return f"local[{max(2, instances * cores)},{_number(conf, 'spark.task.maxFailures', 4)}]"
    raise CommandError(f"executors are threads or processes here, not {executors}")


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
