"""Operators, trigger and steps against the embedded EMR. The steps run a shell command instead of spark-submit."""

import asyncio
import json
import time
import uuid
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from jobs.config import resolve
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.outcome import Outcome
from nightjar.aws import store
from nightjar.emr import outcome, requests, steps
from nightjar.errors import StepFailedError, UserError
from nightjar.operators import CreateClusterOperator, SparkStepOperator, TerminateClustersOperator
from nightjar.triggers import StepTrigger
from tests.support import airflow

pytestmark = pytest.mark.slow


@pytest.fixture
def run(aws, monkeypatch):
    """A run whose configuration is in the lake, as after `preflight`."""
    lake = Lake(f"s3://{airflow.BUCKET}/steps")
    monkeypatch.setenv("NIGHTJAR_LAKE", lake.uri)
    monkeypatch.setenv("NIGHTJAR_PROJECT", "steps")
    monkeypatch.setenv("NIGHTJAR_POLL_SECONDS", "0.2")
    run = lake.run(f"run-{uuid.uuid4().hex[:8]}")
    store().publish(run.config, resolve("s3://lakes/text", "tiny").to_json().encode())
    return run


@pytest.fixture
def context(run):
    pushed = {}
    task_instance = SimpleNamespace(
        run_id=run.run_id, pushed=pushed, xcom_push=lambda key, value: pushed.update({key: value})
    )
    return {"run_id": run.run_id, "ti": task_instance}


@pytest.fixture
def cluster(context):
    """The run's cluster, created and terminated by the DAG's operators."""
    yield CreateClusterOperator(task_id="create_cluster", package_uri="s3://lakes/p").execute(context)
    TerminateClustersOperator(task_id="terminate_cluster").execute(context)


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
    deadline = time.monotonic() + 60
    while (now := steps.describe_step(client, cluster_id, step_id)["Status"]["State"]) not in awaited:
        assert time.monotonic() < deadline, now
        time.sleep(0.1)
    return now


def test_complete_step_with_a_manifest_succeeds(start, run, context, capsys):
    leave_manifest(run)
    store().write_bytes(run.progress("train"), b'{"message": "step 3 of 7, loss 4.5"}')
    operator, trigger = start("sleep 1")
    event = fire(trigger)
    assert event["state"] == "COMPLETED"
    assert operator.finish(context, event) == {"num_steps": 7}
    assert capsys.readouterr().out.count("step 3 of 7, loss 4.5") == 1


def test_nul_characters_in_counts_are_replaced(start, run, context):
    leave_manifest(run, first_sample="a\0b", most_frequent_tokens=[["\0", 0.5]])
    operator, trigger = start("true")
    found = operator.finish(context, fire(trigger))
    assert found == {"num_steps": 7, "first_sample": "a\ufffdb", "most_frequent_tokens": [["\ufffd", 0.5]]}


def test_exit_code_0_without_a_manifest_fails(start, context):
    operator, trigger = start("true")
    with pytest.raises(StepFailedError, match=r"exit code 0, but .*_manifest\.json: missing"):
        operator.finish(context, fire(trigger))


def test_failure_shows_its_cause_and_the_end_of_the_log(start, context, capsys):
    operator, trigger = start("echo all was well; echo 'OSError: no space left' ; exit 1")
    with pytest.raises(StepFailedError, match=r"train failed .*OSError: no space left"):
        operator.finish(context, fire(trigger))
    assert "all was well\nOSError: no space left" in capsys.readouterr().out


def test_user_error_is_one_line_and_not_retried(start, context):
    operator, trigger = start("echo some noise; echo 'nightjar: corpus: too short'; exit 2")
    with pytest.raises(UserError, match=r"^nightjar: corpus: too short$") as caught:
        operator.finish(context, fire(trigger))
    assert isinstance(caught.value, AirflowFailException)


def test_retry_waits_for_the_running_step(start):
    _, trigger = start("sleep 30")
    second, again = start("sleep 30")
    assert trigger.serialize() == again.serialize()
    with pytest.raises(AirflowFailException):
        second.on_kill()


def test_retry_of_a_complete_step_does_not_wait(start, run, context):
    operator, trigger = start("true")
    fire(trigger)
    leave_manifest(run)
    assert operator.execute(context) == {"num_steps": 7}


def test_retry_after_a_failure_submits_a_new_step(start, aws, cluster):
    _, trigger = start("exit 1")
    failed = fire(trigger)
    _, trigger = start("true")
    assert fire(trigger)["step_id"] != failed["step_id"]
    assert attempts(aws, cluster) == [1, 2]


def attempts(client, cluster_id):
    """Return the numbers of the attempts in the arguments of a cluster's steps, the oldest first."""
    return [requests.attempt_of(step)[1] for step in reversed(client.list_steps(ClusterId=cluster_id)["Steps"])]


def test_attempts_are_numbered_across_the_clusters_of_a_run(start, aws, cluster, context):
    _, trigger = start("exit 1")
    fire(trigger)
    TerminateClustersOperator(task_id="sweep").execute(context)
    second = CreateClusterOperator(task_id="create_cluster", package_uri="s3://lakes/p").execute(context)
    assert second != cluster
    operator = SparkStepOperator(task_id="train", step="train", cluster_id=second, package_uri="s3://p")
    with pytest.raises((TaskDeferred, StepFailedError)):  # the step may be over already
        operator.execute(context)
    assert attempts(aws, second) == [2]


def test_an_outcome_in_the_lake_is_the_cause_without_waiting_for_logs(start, run, context):
    operator, trigger = start("exit 1")
    event = fire(trigger)
    left = Outcome("train", 1, 2, "InputError", "corpus: too short", "jobs/x.py:1", "node", "then", "now")
    store().write_bytes(run.outcome("train", 1), left.to_json())
    with pytest.raises(UserError, match=r"^corpus: too short$"):
        operator.finish(context, event)


def test_duplicate_step_is_cancelled(start, aws, cluster, run, monkeypatch):
    """The response to the first submission was lost, and boto3 repeated the request."""
    _, trigger = start("sleep 30")
    request = requests.add_step(cluster, "train", resolve("s3://lakes/text", "tiny"), run, "s3://p")
    find = steps.find_step
    monkeypatch.setattr(steps, "find_step", lambda *_: monkeypatch.setattr(steps, "find_step", find))
    assert steps.submit_step(aws, request) == trigger.serialize()[1]["step_id"]
    first = trigger.serialize()[1]["step_id"]
    [duplicate] = [step["Id"] for step in aws.list_steps(ClusterId=cluster)["Steps"] if step["Id"] != first]
    state(aws, cluster, duplicate, "CANCELLED")
    state(aws, cluster, first, "PENDING", "RUNNING")


def test_overdue_step_is_cancelled_and_the_task_fails(start, aws, cluster, context):
    operator, trigger = start("sleep 60", step_limit_seconds=1.0)
    event = fire(trigger)
    assert event["state"] == "OVERDUE"
    with pytest.raises(AirflowFailException, match=r"exceeded its time limit.*cluster\.step_timeout_seconds"):
        operator.finish(context, event)
    state(aws, cluster, event["step_id"], "CANCELLED")


def test_default_time_limit_is_the_configurations(start):
    assert start("true")[1].serialize()[1]["limit_seconds"] == 6 * 3600


def test_ending_the_deferred_task_cancels_the_step(start, aws, cluster):
    _, trigger = start("sleep 60")
    step_id = trigger.serialize()[1]["step_id"]
    state(aws, cluster, step_id, "RUNNING")
    asyncio.run(trigger.on_kill())
    state(aws, cluster, step_id, "CANCELLED")


def test_signal_to_the_worker_cancels_the_step_and_fails_the_task(start, aws, cluster):
    operator, trigger = start("sleep 60")
    with pytest.raises(AirflowFailException, match="was cancelled: Airflow ended the task"):
        operator.on_kill()
    state(aws, cluster, trigger.serialize()[1]["step_id"], "CANCELLED")


def test_step_that_never_started_shows_the_state_of_its_cluster(start, aws, cluster, context):
    runner = {"Jar": "command-runner.jar", "Args": ["sleep", "60"]}
    before_it = {"Name": "other", "ActionOnFailure": "CONTINUE", "HadoopJarStep": runner}
    aws.add_job_flow_steps(JobFlowId=cluster, Steps=[before_it])
    operator, trigger = start("true")
    aws.terminate_job_flows(JobFlowIds=[cluster])
    event = fire(trigger)
    assert event["state"] == "CANCELLED"
    with pytest.raises(StepFailedError, match=f"never started; cluster {cluster} is TERMINAT"):
        operator.finish(context, event)


def test_wait_for_missing_logs_is_limited(aws, cluster):
    step = {"Id": "s-1", "Status": {"State": "FAILED", "Timeline": {"StartDateTime": "then"}}}
    lake = Lake(f"s3://{airflow.BUCKET}/nowhere")
    failure = outcome.explain_failure(aws, store(), lake, cluster, step, wait_seconds=0.3)
    assert (failure.exit_code, failure.reason) == (None, "step is FAILED")
    assert failure.log_tail == f"(no log in {lake.logs}/{cluster}/steps/s-1 yet)"
