"""Terminate clusters of this project that have exceeded their time to live.

This DAG is the last safeguard behind the teardown of `train_llm`. It catches clusters whose teardown never ran, for
example because Airflow was lost. Each cluster carries its expiry time in the tag `nightjar:expires`. A cluster expires
`cluster.time_to_live_hours` after its creation. If the time limits of the run's steps add up to more, it expires later.

The DAG is active as soon as Airflow has parsed it. A run of the DAG fails if a cluster could not be checked or
terminated. The error names each such cluster.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task
from airflow.sdk.api.datamodels._generated import DagRunType

from jobs.lake.store import Store
from nightjar import aws, settings
from nightjar.emr import reaper

SETTINGS = settings.load()


@task
def reap() -> list[str]:
    """Terminate the expired clusters and return their ids."""
    store = Store(aws.s3_client, retry_seconds=10)  # an unreachable lake must not delay the termination of clusters
    return reaper.reap(aws.emr_client(), store, SETTINGS.lake, SETTINGS.project, SETTINGS.poll_seconds)


with DAG(
    "reap_clusters",
    description="Terminate clusters that have exceeded their time to live",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("*/30 * * * *", timezone="UTC"),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    allowed_run_types=[DagRunType.SCHEDULED, DagRunType.MANUAL],
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["nightjar"],
):
    reap()
