"""Terminate clusters of this project that have exceeded their time to live.

This DAG is the last safeguard behind the teardown of `train_llm`. It catches clusters whose teardown never ran, for
example because Airflow was lost. Each cluster carries its expiry time in the tag `nightjar:expires`, which is
`cluster.time_to_live_hours` after its creation.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task

from nightjar import aws, settings
from nightjar.emr import clusters

SETTINGS = settings.load()


@task
def reap() -> list[str]:
    """Terminate the expired clusters and return their ids."""
    return clusters.terminate_expired(aws.emr_client(), SETTINGS.project, SETTINGS.poll_seconds)


with DAG(
    "reap_clusters",
    description="Terminate clusters that have exceeded their time to live",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("*/30 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["nightjar"],
):
    reap()
