"""A run whose steps run a shell command instead of spark-submit, on the embedded EMR."""

import asyncio
import json
import uuid
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import TaskDeferred

import nightjar.aws
from jobs.config import resolve
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from nightjar.aws import store
from nightjar.emr import requests, steps
from nightjar.operators import CreateClusterOperator, SparkStepOperator, TerminateClustersOperator
from nightjar.triggers import StepTrigger
from tests.support import airflow
from tests.support.waiting import until


@pytest.fixture
def run(aws, monkeypatch):
    """A run whose configuration is in the lake, as after `preflight`."""
    lake = Lake(f"s3://{airflow.BUCKET}/steps")
    monkeypatch.setenv("NIGHTJAR_LAKE", lake.uri)
    monkeypatch.setenv("NIGHTJAR_PROJECT", "steps")
    monkeypatch.setenv("NIGHTJAR_POLL_SECONDS", "0.2")
    run = lake.run(f"run-{uuid.uuid4().hex[:8]}", "default", "steps")
    store().publish(run.config, resolve("s3://lakes/text", "tiny").to_json().encode())
    return run


@pytest.fixture
def context(run):
    pushed = {}
    task_instance = SimpleNamespace(
        dag_id="train_llm",
        run_id=run.run_id,
        pushed=pushed,
        xcom_push=lambda key, value: pushed.update({key: value}),
        xcom_pull=lambda task_ids: None,
    )
    params = {"corpus": "s3://lakes/text", "preset": "tiny"}
    return {"run_id": run.run_id, "ti": task_instance, "params": params}


@pytest.fixture
def client(emr, aws, monkeypatch):
    """The client of EMR that the operators use, whose answers a test may change."""
    client = type(emr)(emr.endpoint).client
    monkeypatch.setattr(nightjar.aws, "emr_client", lambda: client)
    return client


@pytest.fixture
def cluster(context):
    """The run's cluster, created and terminated by the DAG's operators."""
    yield CreateClusterOperator(task_id="create_cluster", package_uri="s3://lakes/p").execute(context)
    terminate(context)


def terminate(context, starts_again=False):
    return TerminateClustersOperator(task_id="terminate_cluster", starts_again=starts_again).execute(context)


@pytest.fixture
def start(context, cluster, monkeypatch, tmp_path):
    """Execute the operator of a step that runs a shell command, and return the operator and its trigger.

    The command starts when the operator has deferred its task, so that the step cannot end before.
    """

    def execute(command, **options):
        deferred_mark = tmp_path / f"deferred-{uuid.uuid4().hex}"
        gated = f"until [ -e '{deferred_mark}' ]; do sleep 0.05; done; {command}"
        monkeypatch.setattr(requests, "spark_submit", lambda *_: ["bash", "-c", gated])
        operator = SparkStepOperator(task_id="train", step="train", cluster_id=cluster, package_uri="s3://p", **options)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        assert deferred.value.method_name == "finish"
        deferred_mark.touch()
        return operator, deferred.value.trigger

    return execute


def fire(trigger):
    """Return the payload of the trigger's event, after serializing the trigger as Airflow does."""
    path, arguments = trigger.serialize()
    assert path == "nightjar.triggers.StepTrigger"
    return asyncio.run(anext(StepTrigger(**json.loads(json.dumps(arguments))).run())).payload


def leave_manifest(run, **counts):
    entry = store().write_file(run.train, "metrics.jsonl", b"{}\n")
    store().publish_manifest(run.train, Manifest("training", "abc", (entry,), {"num_steps": 7, **counts}))


def state(client, cluster_id, step_id, *awaited):
    """Wait until a step is in one of the awaited states, and return that state."""

    def reached():
        now = steps.describe_step(client, cluster_id, step_id)["Status"]["State"]
        return now if now in awaited else None

    return until(reached)
