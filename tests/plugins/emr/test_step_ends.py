"""The ends of a step other than its own: limits, lost and ended clusters, denied calls, and users who cancel."""

import asyncio
import time
from contextlib import contextmanager

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from botocore.exceptions import ClientError

import nightjar.aws
from infra.emr.control import Control
from nightjar.aws import store
from nightjar.emr import requests
from nightjar.emr.clusters import wait_until_ended
from nightjar.errors import FinalError, StepFailedError
from nightjar.operators import CreateClusterOperator, SparkStepOperator
from tests.plugins.emr.conftest import fire, state, terminate
from tests.support.emr_faults import refuse, say_ended

pytestmark = pytest.mark.slow


def test_overdue_step_is_cancelled_and_the_task_fails(start, aws, cluster, context):
    operator, trigger = start("sleep 60", step_limit_seconds=1.0)
    event = fire(trigger)
    assert event["ending"] == "overdue"
    with pytest.raises(FinalError, match=r"exceeded its time limit and was cancelled; raise cluster\.step_timeout_sec"):
        operator.finish(context, event)
    state(aws, cluster, event["step_id"], "CANCELLED")


def test_denied_cancel_does_not_hide_the_limit(start, client, context):
    operator, trigger = start("sleep 60", step_limit_seconds=1.0)
    event = fire(trigger)
    refuse(client, "CancelSteps")
    with pytest.raises(
        FinalError, match=r"exceeded its time limit and could not be cancelled \(CancelSteps: AccessDen"
    ):
        operator.finish(context, event)


def test_step_that_does_not_start_names_the_state_of_its_cluster(start, aws, cluster, context, monkeypatch):
    runner = {"Jar": "command-runner.jar", "Args": ["sleep", "60"]}
    before_it = {"Name": "other", "ActionOnFailure": "CONTINUE", "HadoopJarStep": runner}
    aws.add_job_flow_steps(JobFlowId=cluster, Steps=[before_it])
    operator, trigger = start("true")
    monkeypatch.setattr(requests, "START_LIMIT_SECONDS", 1.2)
    event = fire(trigger)
    assert (event["ending"], event["state"]) == ("not started", "PENDING")
    with pytest.raises(
        FinalError, match=rf"train did not start within 0.02 min and was cancelled; cluster {cluster} is R"
    ):
        operator.finish(context, event)
    state(aws, cluster, event["step_id"], "CANCELLED")


def test_step_that_never_started_shows_the_state_of_its_cluster(start, aws, cluster, context):
    runner = {"Jar": "command-runner.jar", "Args": ["sleep", "60"]}
    before_it = {"Name": "other", "ActionOnFailure": "CONTINUE", "HadoopJarStep": runner}
    aws.add_job_flow_steps(JobFlowId=cluster, Steps=[before_it])
    operator, trigger = start("true")
    aws.terminate_job_flows(JobFlowIds=[cluster])
    event = fire(trigger)
    assert event["state"] == "CANCELLED"
    for _ in range(2):
        with pytest.raises(FinalError, match=f"cluster {cluster} .* by hand .*Terminated by user request"):
            operator.finish(context, event)
    with pytest.raises(FinalError, match=f"cluster {cluster} .* by hand .*Terminated by user request"):
        operator.execute(context)


def test_running_step_whose_cluster_was_ended_by_hand_names_it(start, aws, cluster, context):
    operator, trigger = start("sleep 60")
    state(aws, cluster, trigger.serialize()[1]["step_id"], "RUNNING")
    aws.terminate_job_flows(JobFlowIds=[cluster])
    with pytest.raises(FinalError, match=rf"train did not finish: cluster {cluster} is TERM.* ended by hand"):
        operator.finish(context, fire(trigger))


def test_step_goes_on_with_a_new_cluster_if_its_own_was_lost(start, client, cluster, context, caplog):
    operator, trigger = start("sleep 60")
    client.terminate_job_flows(JobFlowIds=[cluster])
    say_ended(client, cluster, "INSTANCE_FAILURE", "The master failed")
    event = fire(trigger)
    with pytest.raises(TaskDeferred) as deferred:
        operator.finish(context, event)
    again = deferred.value.trigger.serialize()[1]
    assert (again["cluster_id"] != cluster, again["step_id"] != event["step_id"]) == (True, True)
    assert operator.cluster_id == again["cluster_id"]
    assert "The master failed (INSTANCE_FAILURE)" in caplog.text
    assert terminate(context) == [cluster, again["cluster_id"]]


def test_event_of_an_earlier_attempt_does_not_end_the_wait(start, aws, cluster, context):
    """Where Airflow's database is SQLite, a cleared task may get the event of the trigger of its earlier attempt."""
    _, trigger = start("sleep 60")
    terminate(context, starts_again=True)
    event = fire(trigger)
    second = CreateClusterOperator(task_id="create_cluster", package_uri="s3://lakes/p").execute(context)
    operator = SparkStepOperator(task_id="train", step="train", cluster_id=second, package_uri="s3://lakes/p")
    for _ in range(2):
        with pytest.raises(TaskDeferred) as deferred:
            operator.finish(context, event)
        watched = deferred.value.trigger.serialize()[1]
        assert watched["cluster_id"] == second
    assert len(aws.list_steps(ClusterId=second)["Steps"]) == 1


def test_step_that_its_cluster_does_not_take_any_more_names_the_clusters_end(start, client, aws, cluster):
    """EMR itself answers that a job flow that is shutting down may not be modified."""

    def end_cluster(**_):
        aws.terminate_job_flows(JobFlowIds=[cluster])

    client.meta.events.register("before-call.emr.AddJobFlowSteps", end_cluster)
    with pytest.raises(FinalError, match=rf"train was not submitted: cluster {cluster} .* ended by hand"):
        start("true")


def test_cluster_that_ends_just_before_the_step_is_submitted_is_replaced(emr, client, run, context, request):
    control = Control(emr.endpoint)
    control.fault("no-capacity", match={"Name": f"*{run.run_id}"}, count=None)

    def wait_for_the_end(params, **_):
        wait_until_ended(emr.client, params["JobFlowId"], time.monotonic() + 60, 0.2)

    client.meta.events.register("provide-client-params.emr.AddJobFlowSteps", wait_for_the_end)
    with pytest.raises(
        FinalError, match=r"AWS had no capacity .*; 3 clusters of this run ended, and no further cluster is created"
    ):
        request.getfixturevalue("start")("true")
    assert len(terminate(context)) == 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("no-capacity", "AWS had no capacity for it: "), ("bootstrap-failure", "a bootstrap action failed: On the ")],
)
def test_cluster_that_does_not_get_ready_is_replaced(emr, run, context, request, caplog, fault, cause):
    control = Control(emr.endpoint)
    fault_id = control.fault(fault, match={"Name": f"*{run.run_id}"})
    first = request.getfixturevalue("cluster")
    wait_until_ended(emr.client, first, time.monotonic() + 60, 0.2)
    _, trigger = request.getfixturevalue("start")("true")
    assert control.hits(fault_id) == 1
    assert f"cluster {first} is TERMINATED_WITH_ERRORS; {cause}" in caplog.text
    second = trigger.serialize()[1]["cluster_id"]
    types = [
        [each["InstanceType"] for each in fleet["InstanceTypeSpecifications"]]
        for fleet in emr.client.list_instance_fleets(ClusterId=second)["InstanceFleets"]
    ]
    assert types == [["m6a.xlarge", "m7i.xlarge"]] * 2
    assert terminate(context) == [first, second]


def test_cluster_that_died_while_airflow_was_away_is_replaced_by_the_retry(start, client, cluster, context):
    client.terminate_job_flows(JobFlowIds=[cluster])
    say_ended(client, cluster, "USER_REQUEST", "Terminated by its auto-termination policy", state="TERMINATED")
    _, trigger = start("true")
    assert trigger.serialize()[1]["cluster_id"] != cluster


def test_failed_step_is_the_cause_even_if_its_cluster_has_ended_since(start, client, cluster, context):
    operator, trigger = start("echo 'OSError: no space left'; exit 1")
    event = fire(trigger)
    client.terminate_job_flows(JobFlowIds=[cluster])
    with pytest.raises(StepFailedError, match="no space left"):
        operator.finish(context, event)


def test_denied_look_at_the_cause_does_not_hide_the_failure(start, client, context):
    operator, trigger = start("exit 1")
    event = fire(trigger)
    refuse(client, "DescribeStep")
    with pytest.raises(
        StepFailedError, match=r"train is FAILED .* the cause cannot be read \(DescribeStep: AccessDenied"
    ):
        operator.finish(context, event)


def test_throttling_does_not_end_the_wait(start, aws, monkeypatch):
    _, trigger = start("sleep 1")
    with throttled_once(monkeypatch) as refused:
        event = fire(trigger)
    assert (event["ending"], len(refused)) == ("ended", 1)


def test_step_that_may_not_be_seen_fails_with_the_reason(start, context, monkeypatch):
    operator, trigger = start("sleep 60")
    with throttled_once(monkeypatch, "AccessDeniedException"):
        event = fire(trigger)
    assert event["ending"] == "not seen"
    with pytest.raises(StepFailedError, match=r"train: its state cannot be read .*DescribeStep: AccessDeniedException"):
        operator.finish(context, event)
    with pytest.raises(AirflowFailException):
        operator.on_kill()


@contextmanager
def throttled_once(monkeypatch, code="ThrottlingException"):
    """Have the trigger's first DescribeStep refused, as after all of boto3's own retries."""
    refused = []

    class Refusing:
        def __init__(self, client):
            self._client = client

        async def describe_step(self, **params):
            if not refused:
                refused.append(params)
                answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
                raise ClientError(answer, "DescribeStep")
            return await self._client.describe_step(**params)

    class Opened:
        def __init__(self, opened):
            self._opened = opened

        async def __aenter__(self):
            return Refusing(await self._opened.__aenter__())

        async def __aexit__(self, *error):
            return await self._opened.__aexit__(*error)

    connect = nightjar.aws.async_emr_client

    async def refusing():
        return Opened(await connect())

    with monkeypatch.context() as patch:
        patch.setattr(nightjar.aws, "async_emr_client", refusing)
        yield refused


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


def test_cluster_that_is_asked_for_while_the_task_is_ended_is_recorded(run, context, client):
    """A signal arrives while RunJobFlow is under way: its answer is awaited, and the task fails then."""
    create = CreateClusterOperator(task_id="create_cluster", package_uri="s3://lakes/p")
    client.meta.events.register("before-call.emr.RunJobFlow", lambda **_: create.on_kill())
    with pytest.raises(AirflowFailException, match="create_cluster was cancelled"):
        create.execute(context)
    [ended] = terminate(context)
    assert client.describe_cluster(ClusterId=ended)["Cluster"]["Status"]["State"] == "TERMINATED"


def test_signal_before_the_request_prevents_it(run, context, client):
    create = CreateClusterOperator(task_id="create_cluster", package_uri="s3://lakes/p")
    client.meta.events.register("before-call.emr.ListClusters", lambda **_: create.on_kill())
    with pytest.raises(AirflowFailException, match="create_cluster was cancelled"):
        create.execute(context)
    assert store().list_files(run.clusters) == []
