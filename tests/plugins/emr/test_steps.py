"""Operators and steps against the embedded EMR: what is submitted, attached to, verified and skipped."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from botocore.exceptions import ClientError

from infra.emr.control import Control
from jobs.config import resolve
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import Manifest
from jobs.lake.outcome import Outcome
from jobs.lake.uri import join
from nightjar.aws import store
from nightjar.emr import attempts as attempts_module
from nightjar.emr import outcome, requests, steps
from nightjar.emr.attempts import Attempts
from nightjar.errors import StepFailedError, UserError
from nightjar.operators import CreateClusterOperator, SparkStepOperator
from nightjar.tasks import results
from tests.plugins.emr.conftest import fire, leave_manifest, state, terminate
from tests.support import airflow

pytestmark = pytest.mark.slow


def test_complete_step_with_a_manifest_succeeds(start, run, context, capsys):
    store().write_bytes(run.progress("train"), b'{"message": "step 3 of 7, loss 4.5"}')
    operator, trigger = start("sleep 1")
    leave_manifest(run)
    event = fire(trigger)
    assert event["state"] == "COMPLETED"
    assert operator.finish(context, event) == {"num_steps": 7}
    assert capsys.readouterr().out.count("step 3 of 7, loss 4.5") == 1


def test_nul_characters_in_counts_are_replaced(start, run, context):
    operator, trigger = start("true")
    leave_manifest(run, first_sample="a\0b", most_frequent_tokens=[["\0", 0.5]])
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


@pytest.mark.parametrize("damage", ["none", "file"])
def test_retry_submits_a_complete_step_again_if_its_output_does_not_verify(start, run, context, damage):
    operator, trigger = start("true")
    event = fire(trigger)
    if damage != "none":
        leave_manifest(run)
        store().delete_file(join(run.train, "metrics.jsonl"))
    with pytest.raises(StepFailedError, match="exit code 0, but its output is incomplete"):
        operator.finish(context, event)
    _, again = start("true")
    assert fire(again)["step_id"] != event["step_id"]


def test_step_of_another_run_on_the_same_cluster_is_left_alone(start, aws, cluster):
    command = {"Jar": "command-runner.jar", "Args": ["bash", "-c", "sleep 60", "--config", "s3://lakes/x/config.json"]}
    theirs = {"Name": "train", "ActionOnFailure": "CONTINUE", "HadoopJarStep": command}
    [their_step] = aws.add_job_flow_steps(JobFlowId=cluster, Steps=[theirs])["StepIds"]
    operator, trigger = start("sleep 60")
    assert trigger.serialize()[1]["step_id"] != their_step
    with pytest.raises(AirflowFailException):
        operator.on_kill()
    assert steps.describe_step(aws, cluster, their_step)["Status"]["State"] in ("PENDING", "RUNNING")


def test_retry_after_a_failure_submits_a_new_step(start, aws, cluster):
    _, trigger = start("exit 1")
    failed = fire(trigger)
    _, trigger = start("true")
    assert fire(trigger)["step_id"] != failed["step_id"]
    assert attempts(aws, cluster) == [1, 2]


WAITS = "Waiting for the answer to the request AddJobFlowSteps"


@pytest.fixture
def ask(run, cluster, aws):
    """Record an attempt as a try does that dies before EMR's answer; return what carries the request out."""

    def record(age_seconds=0):
        asked = datetime.now(UTC) - timedelta(seconds=age_seconds)
        values = {"cluster_id": cluster, "asked": asked.isoformat(), "step_id": None, "refused": None}
        store().write_json(run.submission("train", 1), values)
        request = requests.add_step(cluster, "train", resolve("s3://lakes/text", "tiny"), run, "s3://p", 1)
        request["Steps"][0]["HadoopJarStep"]["Args"] = ["bash", "-c", "true", "--config", run.config, "--attempt", "1"]
        return lambda: aws.add_job_flow_steps(**request)["StepIds"][0]

    return record


def submitted(run, number):
    return store().read_json(run.submission("train", number))


def test_a_retry_waits_for_the_step_that_a_killed_try_has_asked_for(start, ask, run, context, aws, cluster):
    with ThreadPoolExecutor() as pool:
        carry_out = ask()
        late = pool.submit(lambda: (time.sleep(1), carry_out(), leave_manifest(run))[1])
        operator = SparkStepOperator(task_id="train", step="train", cluster_id=cluster, package_uri="s3://p")
        try:
            found = operator.execute(context)
        except TaskDeferred as deferred:
            found = operator.finish(context, fire(deferred.trigger))
    assert found == {"num_steps": 7}
    assert operator.step_id == late.result() == submitted(run, 1)["step_id"]
    assert attempts(aws, cluster) == [1]


def test_a_request_of_which_nothing_is_seen_had_no_effect(start, ask, run, aws, cluster, monkeypatch, caplog):
    monkeypatch.setattr(attempts_module, "SETTLE_SECONDS", 3.0)
    ask(age_seconds=-60)  # by a clock that is ahead, so the whole time is left
    _, trigger = start("true")
    assert WAITS in caplog.text
    assert attempts(aws, cluster) == [2]
    assert "no answer, and EMR listed no such step" in submitted(run, 1)["refused"]
    assert submitted(run, 2)["step_id"] == trigger.serialize()[1]["step_id"]


def test_a_request_of_long_ago_is_not_waited_for(start, ask, aws, cluster, caplog):
    ask(age_seconds=61)
    start("true")
    assert WAITS not in caplog.text
    assert attempts(aws, cluster) == [2]


def test_a_refused_request_is_recorded_and_not_waited_for(start, run, emr, cluster, context, caplog):
    Control(emr.endpoint).fault("denied", operation="AddJobFlowSteps")
    operator = SparkStepOperator(task_id="train", step="train", cluster_id=cluster, package_uri="s3://p")
    with pytest.raises(ClientError):
        operator.execute(context)
    assert "AccessDenied" in submitted(run, 1)["refused"]
    start("true")
    assert WAITS not in caplog.text


def attempts(client, cluster_id):
    """Return the numbers of the attempts in the arguments of a cluster's steps, the oldest first."""
    return [requests.attempt_of(step)[1] for step in reversed(client.list_steps(ClusterId=cluster_id)["Steps"])]


def test_attempts_are_numbered_across_the_clusters_of_a_run(start, aws, cluster, context):
    _, trigger = start("exit 1")
    fire(trigger)
    terminate(context, starts_again=True)
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


def test_duplicate_step_is_cancelled(start, aws, cluster, run):
    """The response to the first submission was lost, and boto3 repeated the request."""
    _, trigger = start("sleep 30")
    request = requests.add_step(cluster, "train", resolve("s3://lakes/text", "tiny"), run, "s3://p")
    assert Attempts(aws, store(), run, "train").submit(2, request) == trigger.serialize()[1]["step_id"]
    first = trigger.serialize()[1]["step_id"]
    [duplicate] = [step["Id"] for step in aws.list_steps(ClusterId=cluster)["Steps"] if step["Id"] != first]
    state(aws, cluster, duplicate, "CANCELLED")
    state(aws, cluster, first, "PENDING", "RUNNING")


def test_default_time_limit_is_the_configurations(start):
    assert start("true")[1].serialize()[1]["limit_seconds"] == 6 * 3600


def test_run_whose_steps_have_finished_needs_no_cluster(run, context, aws):
    store().write_json(run.datasets, {"tokens": "a", "windows": "b"})
    lake = Lake(run.lake_uri)
    folders = [lake.dataset("tokens", "a"), lake.dataset("windows", "b"), run.train, run.generate, run.model]
    for folder in folders:
        entry = store().write_file(folder, "x", b"x")
        inputs = {"model": "m"} if folder in (run.train, run.generate) else {}
        store().publish_manifest(folder, Manifest("x", "m", (entry,), {"num_steps": 7}, inputs))
    create = CreateClusterOperator(task_id="create_cluster", package_uri="s3://lakes/p")
    assert create.execute(context) == ""
    assert terminate(context) == []
    step = SparkStepOperator(task_id="train", step="train", cluster_id="", package_uri="s3://lakes/p")
    assert step.execute(context) == {"num_steps": 7}
    store().delete_file(join(run.model, MANIFEST))
    assert results.unfinished_steps(resolve("s3://lakes/text", "tiny"), run, store()) == ["train", "generate"]
    assert create.execute(context).startswith("j-")
    terminate(context)


def test_wait_for_missing_logs_is_limited(aws, cluster):
    step = {"Id": "s-1", "Status": {"State": "FAILED", "Timeline": {"StartDateTime": "then"}}}
    lake = Lake(f"s3://{airflow.BUCKET}/nowhere")
    failure = outcome.explain_failure(aws, store(), lake, cluster, step, wait_seconds=0.3)
    assert (failure.exit_code, failure.reason) == (None, "step is FAILED")
    assert failure.log_tail == f"(no log in {lake.logs}/{cluster}/steps/s-1 yet)"
