"""What the environment chooses: the two settings in which a laptop and AWS differ, and a few comforts.

====================  ==================================================================  =========================
variable              meaning                                                             default
====================  ==================================================================  =========================
NIGHTJAR_LAKE         folder of everything: a path, file:///... or s3://bucket/prefix     ./lake in the project
NIGHTJAR_PROJECT      part of every cluster's name; tells deployments apart               lab
NIGHTJAR_CORPUS       text to train on, where the trigger form names none                 none
NIGHTJAR_SCHEDULE     cron expression in UTC, for example ``0 2 * * *``                   none: runs are triggered
NIGHTJAR_POLL_SECONDS  seconds between two looks at the cluster                           30 (1 on a laptop)
NIGHTJAR_STATS_DIR    local folder that gets each run's statistics                        ./stats in the project
NIGHTJAR_PACKAGE_ROOT  folder that holds the package `jobs` to be uploaded                the project
NIGHTJAR_CLUSTER_<KEY>  default of ``cluster.<key>`` in this deployment (``make aws-deploy``)  the configuration's
====================  ==================================================================  =========================

The AWS endpoint and credentials come from the connection ``aws_default`` or, without one, from boto3's usual places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.config import parse_settings
from jobs.errors import InputError
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import to_uri

_CLUSTER = "NIGHTJAR_CLUSTER_"
PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """The environment's choices, read at the moment they are needed."""

    lake: Lake
    project: str
    corpus: str | None
    schedule: str | None
    poll_seconds: float
    stats_dir: Path
    package_root: Path
    cluster: Mapping[str, Any]
    """Dotted keys of the deployment's machines, roles and networks; presets know nothing of them."""

    def run(self, run_id: str) -> Run:
        """The folder of an Airflow run."""
        return self.lake.run(run_id)


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:
        InputError: naming the variable whose value is wrong.
    """

    def get(name: str, default: str = "") -> str:
        return environ.get(f"NIGHTJAR_{name}", "").strip() or default

    try:
        lake = Lake(to_uri(get("LAKE", str(PROJECT_ROOT / "lake"))))
    except InputError as error:
        raise InputError(f"NIGHTJAR_LAKE: {error}") from None
    return Settings(
        lake=lake,
        project=_project(get("PROJECT", "lab")),
        corpus=get("CORPUS") or None,
        schedule=get("SCHEDULE") or None,
        poll_seconds=_seconds("NIGHTJAR_POLL_SECONDS", get("POLL_SECONDS", "30")),
        stats_dir=Path(get("STATS_DIR", str(PROJECT_ROOT / "stats"))).expanduser().absolute(),
        package_root=Path(get("PACKAGE_ROOT", str(PROJECT_ROOT))).expanduser().absolute(),
        cluster=parse_settings(
            f"cluster.{name.removeprefix(_CLUSTER).lower()}={value}"
            for name, value in sorted(environ.items())
            if name.startswith(_CLUSTER) and value.strip()
        ),
    )


def _project(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text):
        raise InputError(f"NIGHTJAR_PROJECT: '{text}' must be letters, digits, '.', '_' or '-', at most 63")
    return text


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise InputError(f"{name}: '{text}' is not a number of seconds between 0 and 3600")
    return seconds
