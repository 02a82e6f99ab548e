"""The DAG `reap_clusters`: ends clusters of this project that outlived their time to live.

The last net under `train_llm`, for what no teardown ended: Airflow lost, a task killed between two calls. A cluster
tells by its tag ``nightjar:expires`` when its time is over (``cluster.time_to_live_hours`` after its creation).
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task

from nightjar import aws, settings
from nightjar.emr import clusters

SETTINGS = settings.load()


@task
def reap() -> list[str]:
    """End the clusters whose time is over; return their ids."""
    return clusters.end_outlived(aws.emr_client(), SETTINGS.project, SETTINGS.poll_seconds)


with DAG(
    "reap_clusters",
    description="Ends clusters that outlived their time to live",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("*/30 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["nightjar"],
):
    reap()
