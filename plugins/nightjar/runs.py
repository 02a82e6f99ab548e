"""The run of a task: its place in the lake, and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.config import Config, of_run
from jobs.errors import InputError
from jobs.lake.layout import Lake, Pipeline, Run
from jobs.lake.runs import located
from nightjar import aws, form, pipelines, settings
from nightjar.errors import UserError
from nightjar.tasks.placement import place

if TYPE_CHECKING:
    from airflow.sdk import Context


def located_run(dag_id: str, run_id: str) -> Run:
    """Return the run of an Airflow DAG run.

    A run that was started with version 0.1 keeps its folder in the earlier layout of the lake.
    """
    run = settings.load().run(dag_id, run_id)
    return located(run, Lake(run.lake_uri).earlier_run(run_id), aws.store())


def started_by(context: Context) -> str:
    """Return who or what started the run of a task, such as ``airflow: ann`` or ``airflow: scheduled``."""
    run = context["dag_run"]
    return f"airflow: {run.triggering_user_name or run.run_type.value}"


def renewed_config(run: Run, params: Mapping[str, Any]) -> Config:
    """Return the configuration that `preflight` wrote, with the current settings of the deployment.

    For example, a task that is retried or cleared after a wrong subnet was corrected uses the corrected subnet.
    """
    try:
        config = form.read_form(params, pipelines.find(Pipeline.of(run).name, settings.load()))
        return of_run.renew(run, place(config), aws.store())
    except InputError as error:
        raise UserError(str(error)) from None
