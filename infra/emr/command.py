"""From the step of an API call to what is started here: command, environment, files. Pure: it touches nothing."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from infra.emr.settings import Settings, Site
from infra.emr.spark_submit import CommandError, Download, localize
from infra.emr.store import KEYS

EXECUTORS_TAG = "nightjar:executors"

# A step inherits from whoever started the server what a program needs to find its tools and its language, and no more:
# neither PYTHONPATH nor a proxy nor Airflow's secrets.
INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LC_\w+|JAVA_HOME|LD_LIBRARY_PATH|SSL_CERT_\w+|NIGHTJAR_\w+"
    r"|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)"
)
OF_EMR_MACHINES = frozenset(
    {"PATH", "JAVA_HOME", "SPARK_HOME", "PYTHONPATH", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"}
)


@dataclass(frozen=True)
class ClusterSpec:
    """What a cluster's request says about how its steps run."""

    region: str
    executors: str
    """`threads` or `processes`; a tag may say anything."""

    spark_defaults: Mapping[str, str]
    exports: Mapping[str, str]
    """Environment variables of the classifications `spark-env` / `export`."""


@dataclass(frozen=True)
class StepCommand:
    """What is started, once the files are there."""

    argv: tuple[str, ...]
    downloads: tuple[Download, ...] = ()


def read_spec(
    configurations: Sequence[Mapping[str, Any]], tags: Mapping[str, str], region: str, settings: Settings
) -> ClusterSpec:
    """Reads a cluster's Configurations and tags."""
    by_name = {str(item.get("Classification")): item for item in configurations}
    nested = by_name.get("spark-env", {}).get("Configurations") or ()
    exports = {str(item.get("Classification")): item for item in nested}.get("export", {})
    return ClusterSpec(
        region=region,
        executors=tags.get(EXECUTORS_TAG, settings.executors),
        spark_defaults=_properties(by_name.get("spark-defaults", {})),
        exports={key: value for key, value in _properties(exports).items() if key not in OF_EMR_MACHINES},
    )


def step_command(
    jar: str, args: Sequence[str], spec: ClusterSpec, spark_home: Path | None, java_options: str
) -> StepCommand:
    """Makes the command of a step.

    Raises:
        CommandError: The step is none that this EMR can run.
    """
    if PurePath(jar).name != "command-runner.jar":
        raise CommandError(f"{jar}: only steps of command-runner.jar run here")
    if not args:
        raise CommandError("command-runner.jar: no command given")
    if PurePath(args[0]).name != "spark-submit":
        return StepCommand(tuple(args))
    if spark_home is None:
        raise CommandError("pyspark is not installed in the environment of the embedded EMR")
    argv, downloads = localize(args[1:], spec.spark_defaults, spark_home, spec.executors, java_options)
    return StepCommand(tuple(argv), downloads)


def step_env(
    environ: Mapping[str, str], site: Site, spec: ClusterSpec, spark_home: Path | None, scratch: Path
) -> dict[str, str]:
    """Makes the environment of a step: it works against this server, with this Python."""
    env = {**KEYS, **{key: value for key, value in environ.items() if INHERITED.fullmatch(key)}}
    env["PATH"] = f"{PurePath(sys.executable).parent}:{environ.get('PATH', '/usr/bin:/bin')}"
    if "utf" not in (env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "").lower():
        env["LC_ALL"] = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"  # else Java cannot name 'é' in a path
    return {
        **env,
        **spec.exports,
        "AWS_ENDPOINT_URL": site.endpoint_url,
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        **({"SPARK_HOME": str(spark_home)} if spark_home else {}),
        "SPARK_LOCAL_DIRS": str(scratch),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        **site.settings.step_env,
    }


def _properties(item: Mapping[str, Any]) -> dict[str, str]:
    pairs: Iterable[tuple[Any, Any]] = (item.get("Properties") or {}).items()
    return {str(key): str(value) for key, value in pairs}
