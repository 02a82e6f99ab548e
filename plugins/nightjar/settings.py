"""The settings of a deployment, from environment variables. A laptop and AWS differ only in these settings.

A variable's name is ``NIGHTJAR_`` and the name of the field: ``NIGHTJAR_LAKE=s3://bucket/prefix``. An empty variable
counts as absent. Variables ``NIGHTJAR_<SECTION>_<KEY>`` are settings of runs (`jobs.config`).

The AWS endpoint and the credentials come from Airflow's connection ``aws_default``. Without it, boto3 looks for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import jobs
from jobs.config import PREFIX
from jobs.errors import InputError, shorten
from jobs.lake.identity import DEFAULT, LOCAL, PROJECT, is_project
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import to_uri

DAG_ID = "train_llm"
"""The DAG of the pipeline `DEFAULT`."""
PROJECT_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE_ROOT = Path(jobs.__file__).resolve().parents[1]
"""The folder that holds `jobs`: the project, or the plugins folder of an Airflow where ``plugins.zip`` was unpacked."""


_RESERVED = (DEFAULT, LOCAL)


def _to_lake(place: str | Lake) -> Lake:
    try:
        return place if isinstance(place, Lake) else Lake(to_uri(place))
    except InputError as error:
        raise ValueError(str(error)) from None  # pydantic adds the field's name only to a ValueError


def _check_project(name: str) -> str:
    if not is_project(name):
        raise ValueError("use at most 63 letters, digits, '.', '_' or '-', and begin with a letter or digit")
    return name


def _strip(text: object) -> object:
    return text.strip() or None if isinstance(text, str) else text


Text = Annotated[str | None, BeforeValidator(_strip)]
Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class Settings(BaseSettings):
    """The settings of a deployment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    lake: Annotated[Lake, NoDecode, BeforeValidator(_to_lake)] = Lake((PROJECT_ROOT / "lake").as_uri())
    """Folder of datasets, runs and models: a path, file:///... or s3://bucket/prefix. Default: lake in the project."""
    project: Annotated[str, AfterValidator(_check_project)] = PROJECT
    """Name of the deployment, which is part of its clusters' names and tags and of its runs' folders. Deployments that
    share an AWS account or a lake need different names."""
    pipelines: Annotated[Folder | None, BeforeValidator(_strip)] = None
    """Folder of the pipelines' files, ``<name>.toml``: each makes a DAG (`nightjar.pipelines`). Airflow's DAG processor
    and its workers read it. Without a value, `train_llm` is the only pipeline."""
    corpus: Text = None
    """Corpus of the DAG `train_llm`, as a path or URI, for runs whose trigger form has none. Scheduled runs need it."""
    schedule: Text = None
    """Cron expression of the DAG `train_llm`, such as ``0 2 * * *`` for every night at 2. The time zone is UTC unless
    the pipeline's file names another zone. Without a schedule here or in the file, runs are started by hand."""
    poll_seconds: float = Field(30.0, gt=0, lt=3600)
    """Seconds between two requests for the state of a cluster or step. 1 suits the embedded EMR."""
    stats_dir: Folder = PROJECT_ROOT / "stats"
    """Local folder to which the statistics of each run are copied. Default: stats in the project."""
    job_python: Annotated[Path | None, BeforeValidator(_strip)] = None
    """Python interpreter of the job's environment on this machine. The page of a run starts it to try the model.
    Default: Airflow's own interpreter, if it has torch."""
    command: str = "nightjar"
    """What people who read Airflow's log type to start `nightjar`. The log uses it in the commands that it proposes."""
    package_root: Folder = _PACKAGE_ROOT
    """Folder that holds the package `jobs`, which is uploaded for the cluster. Default: the folder from which Airflow
    imports it."""

    def run(self, dag_id: str, run_id: str) -> Run:
        """Return the run of an Airflow DAG run.

        The run's pipeline is the pipeline of the DAG, because run ids are unique only within a DAG.
        """
        if dag_id in _RESERVED:
            raise InputError(f"DAG {dag_id}: this name is reserved for a pipeline; rename the DAG")
        return self.lake.run(run_id, DEFAULT if dag_id == DAG_ID else dag_id, self.project)


def load() -> Settings:
    """Read the settings from the environment. An `InputError` names the variable whose value is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        [first, *_] = error.errors()
    variable, message = f"{PREFIX}{first['loc'][0]}".upper(), first["msg"].removeprefix("Value error, ")
    raise InputError(f"{variable}: {message[0].lower()}{message[1:]}, got {shorten(repr(first['input']))}")
