"""Translate a step of the API into a local command: arguments, environment and downloads. All functions are pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from infra.emr.client import KEYS, STEP_AGENT
from infra.emr.spark_home import NO_SPARK
from infra.emr.spark_submit import CommandError, Download, SparkCluster, find_engine, localize
from infra.emr.yarn.cluster import Yarn

EXECUTORS_TAG = "nightjar:executors"

# A step inherits only these variables of the server's environment. PYTHONPATH, proxies and Airflow's secrets are not
# passed on.
INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LC_\w+|JAVA_HOME|LD_LIBRARY_PATH|SSL_CERT_\w+|NIGHTJAR_\w+"
    r"|SPARK_SUBMIT_OPTS"
    r"|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)"
)
OVERRIDDEN_EXPORTS = frozenset(
    {"PATH", "JAVA_HOME", "SPARK_HOME", "PYTHONPATH", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"}
)


@dataclass(frozen=True)
class ClusterSpec:
    """The parts of a cluster's request that decide how its steps run."""

    region: str
    executors: str
    """`threads`, `processes` or `yarn`. Not validated: it may come from a tag."""
    spark_defaults: Mapping[str, str]
    exports: Mapping[str, str]
    """Environment variables of the classification `export` in `spark-env`."""
    worker_megabytes: tuple[int, ...] = ()
    """MB of memory that YARN has on each worker of such a cluster on EMR. If empty, memory is not limited."""
    python: str = sys.executable
    """The Python interpreter of drivers and executors."""
    yarn: Yarn | None = None
    """The local YARN cluster that runs the steps. If None, steps run without YARN."""
    metadata_url: str = ""
    """The URL at which a step finds out whether spot instances of its cluster will be lost."""

    def with_python(self, python: str) -> ClusterSpec:
        """Return this specification with another Python interpreter."""
        return replace(self, python=python)


@dataclass(frozen=True)
class StepCommand:
    """The local command of a step, and the files to download before it starts."""

    argv: tuple[str, ...]
    downloads: tuple[Download, ...] = ()
    entering: tuple[str, ...] = ()
    """The command that enters a YARN host. It precedes `argv`. If empty, `argv` runs directly on this machine."""


def read_exports(configurations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the environment variables that a cluster's Configurations export.

    Variables that this server sets itself are left out.
    """
    nested = _by_name(configurations).get("spark-env", {}).get("Configurations") or ()
    exports = _properties(_by_name(nested).get("export", {}))
    return {key: value for key, value in exports.items() if key not in OVERRIDDEN_EXPORTS}


def read_defaults(configurations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the `spark-defaults` of a cluster's Configurations."""
    return _properties(_by_name(configurations).get("spark-defaults", {}))


def step_command(
    jar: str, args: Sequence[str], spec: ClusterSpec, spark_home: Path | None, java_options: str
) -> StepCommand:
    """Return the local command of a step. Raise a `CommandError` if the embedded EMR cannot run the step."""
    _check(jar, args)
    if PurePath(args[0]).name != "spark-submit":
        return StepCommand(tuple(args))
    if spark_home is None:
        raise CommandError(NO_SPARK)
    cluster = SparkCluster(spec.spark_defaults, spark_home, java_options, spec.worker_megabytes)
    argv, downloads = localize(args[1:], cluster, find_engine(spec.executors))
    return StepCommand(tuple(argv), downloads)


def yarn_command(jar: str, args: Sequence[str], yarn: Yarn, folder: Path) -> StepCommand:
    """Return the command that runs a step in `folder` on YARN's primary host. The step's own command is not changed."""
    _check(jar, args)
    return StepCommand(tuple(args), entering=yarn.entering(folder))


def _check(jar: str, args: Sequence[str]) -> None:
    if PurePath(jar).name != "command-runner.jar":
        raise CommandError(f"{jar}: the embedded EMR only runs steps of command-runner.jar")
    if not args:
        raise CommandError("command-runner.jar: the step has no arguments, so there is no command to run")


def step_env(
    environ: Mapping[str, str],
    endpoint_url: str,
    spec: ClusterSpec,
    spark_home: Path | None,
    scratch: Path,
    own: Mapping[str, str],
) -> dict[str, str]:
    """Return the environment variables of a step. They make AWS SDKs use this server. `own` overrides all others."""
    env = {
        **KEYS,
        **{key: value for key, value in environ.items() if INHERITED.fullmatch(key)},
    }
    env["PATH"] = f"{PurePath(sys.executable).parent}:{environ.get('PATH', '/usr/bin:/bin')}"
    if "utf" not in (env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "").lower():
        # Without UTF-8, Java cannot open a path with "é".
        env["LC_ALL"] = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
    return {
        **env,
        **spec.exports,
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": spec.metadata_url,
        "AWS_EXECUTION_ENV": STEP_AGENT,
        **({"SPARK_HOME": str(spark_home)} if spark_home else {}),
        "SPARK_LOCAL_DIRS": str(scratch),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": spec.python,
        "PYSPARK_DRIVER_PYTHON": spec.python,
        **own,
    }


def _by_name(configurations: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(item.get("Classification")): item for item in configurations}


def _properties(item: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in (item.get("Properties") or {}).items()}
