"""The provider's own EMR hook, waiters, operators and sensors work with the embedded EMR."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.airflow.environment import environment
from tests.infra.emr.conftest import AWS, Emr, bash
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.airflow

HOOK = """
import asyncio, sys
from airflow.providers.amazon.aws.hooks.emr import EmrHook

hook = EmrHook(aws_conn_id=None)
cluster, step = sys.argv[1:]
assert hook.get_cluster_id_by_name("for airflow", ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]) == cluster

async def wait():
    async with await hook.get_async_conn() as client:
        waiter = hook.get_waiter("step_wait_for_terminal", deferrable=True, client=client)
        await waiter.wait(ClusterId=cluster, StepId=step, WaiterConfig={"Delay": 0.2, "MaxAttempts": 50})

asyncio.run(wait())
"""
DAG = """
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb

initdb()
run = DagBag().dags["provider"].test()
assert run.state == "success", run.state
"""


@pytest.mark.long
def test_hook_finds_a_cluster_and_waits_for_a_step(emr: Emr, tmp_path: Path) -> None:
    cluster = emr.create(bash("sleep 1"), Name="for airflow")
    env = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), "AWS_ENDPOINT_URL": emr.endpoint_url, **AWS}
    argv = [sys.executable, "-c", HOOK, cluster, emr.steps(cluster)[0]["Id"]]
    subprocess.run(argv, env=env, check=True, timeout=PATIENCE_SECONDS)
    assert emr.states(cluster) == ["COMPLETED"]
    emr.api.terminate_job_flows(JobFlowIds=[cluster])


@pytest.mark.long
def test_operators_and_sensors_of_the_provider_run_a_cluster(emr: Emr, tmp_path: Path) -> None:
    own = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "none"),
    }
    env = {**environment(tmp_path / "home", "file:///nowhere", emr.endpoint_url), **own}
    done = subprocess.run(
        [sys.executable, "-c", DAG], env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (cluster,) = [each["Id"] for each in emr.api.list_clusters()["Clusters"] if each["Name"] == "of the provider"]
    assert emr.status(cluster)["State"] == "TERMINATED"
    assert emr.states(cluster) == ["COMPLETED", "COMPLETED"]
    described = emr.api.describe_cluster(ClusterId=cluster)["Cluster"]
    assert described["StepConcurrencyLevel"] == 2
