"""Make an earlier champion of a pipeline the champion again.

The history of the champion records who rolled back and why. A run in progress continues. Later, its model is promoted
only if it was compared with the champion that is then in use.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.sdk.api.datamodels._generated import DagRunType

from jobs.lake.champion import roll_back
from jobs.lake.identity import DEFAULT
from nightjar import aws, settings
from nightjar.errors import input_errors_are_final
from nightjar.runs import started_by

SETTINGS = settings.load()


@task(retries=3)
def rollback() -> dict[str, str]:
    """Roll back to an earlier champion, and return the champion's run and model."""
    context = get_current_context()
    params = context["params"]
    with input_errors_are_final():
        change = roll_back(
            SETTINGS.lake.pipeline(params["pipeline"]),
            started_by(context),
            params["why"],
            params["to"] or "",
            request=f"{context['dag_run'].dag_id} {context['run_id']}",
            store=aws.store(),
        )
    return {"run": change.run, "model": change.model}


with DAG(
    "rollback_champion",
    description="Make an earlier champion of a pipeline the champion again",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    allowed_run_types=[DagRunType.MANUAL],
    params={
        "pipeline": Param(DEFAULT, type="string", minLength=1, title="Pipeline"),
        "to": Param(
            None,
            type=["null", "string"],
            title="Champion",
            description_md="The earlier champion: the first characters of its model's hash, or the id of its run."
            " Empty: the previous champion.",
        ),
        "why": Param("by hand", type="string", minLength=1, title="Reason"),
    },
    tags=["nightjar"],
):
    rollback()
