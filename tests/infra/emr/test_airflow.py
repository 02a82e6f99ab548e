"""Airflow's EMR hook and its asynchronous waiters work with the embedded EMR."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.emr.conftest import AWS, Emr, bash

pytestmark = pytest.mark.airflow

SCRIPT = """
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


def test_hook_finds_a_cluster_and_waits_for_a_step(emr: Emr, tmp_path: Path) -> None:
    cluster = emr.create(bash("sleep 1"), Name="for airflow")
    env = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), "AWS_ENDPOINT_URL": emr.endpoint_url, **AWS}
    argv = [sys.executable, "-c", SCRIPT, cluster, emr.steps(cluster)[0]["Id"]]
    subprocess.run(argv, env=env, check=True, timeout=200)
    assert emr.states(cluster) == ["COMPLETED"]
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
