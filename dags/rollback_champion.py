"""Make an earlier champion of a pipeline the champion again.

The history of the champion records who did it and why. A night that is under way goes on, and does not replace a
champion that it was not compared with.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.sdk.api.datamodels._generated import DagRunType

from jobs.lake.champion import roll_back
from jobs.lake.identity import DEFAULT
from nightjar import aws, settings
from nightjar.errors import only_mistakes_are_final
from nightjar.runs import started_by

SETTINGS = settings.load()


@task(retries=3)
def rollback() -> dict[str, str]:
    """Change the champion, and return its run and model."""
    context = get_current_context()
    params = context["params"]
    with only_mistakes_are_final():
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
            description_md="Beginning of the name of an earlier champion's model, or the id of its run. Empty: the one"
            " before the present one.",
        ),
        "why": Param("by hand", type="string", minLength=1, title="Reason"),
    },
    tags=["nightjar"],
):
    rollback()
