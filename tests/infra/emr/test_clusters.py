"""The states of clusters and steps in the EMR API."""

import json
import signal
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from infra.emr.control import Control
from jobs.errors import InputError
from tests.infra.emr.conftest import Emr, bash, command, served
from tests.infra.emr.test_faults import FLEETS
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.slow


def test_cluster_starts_runs_its_steps_in_order_and_waits(emr: Emr, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "infra.emr")
    cluster = emr.create(bash("date +%s%N; sleep 0.3"), bash("date +%s%N"), Tags=[{"Key": "run", "Value": "r1"}])
    status = emr.wait("WAITING", cluster)
    logged = [message.split() for message in caplog.messages if message.startswith(cluster)]
    assert [words[1].strip(":") for words in logged if not words[1].startswith("s-")] == [
        "STARTING",
        "BOOTSTRAPPING",
        "WAITING",
    ]
    assert [words[2].strip(":") for words in logged if words[1].startswith("s-")] == ["RUNNING", "COMPLETED"] * 2
    assert status["StateChangeReason"]["Message"]
    assert status["Timeline"]["ReadyDateTime"] > status["Timeline"]["CreationDateTime"]
    first, second = emr.steps(cluster)
    assert int(emr.log(cluster, second["Id"])) - int(emr.log(cluster, first["Id"])) > 0.3e9
    times = first["Status"]["Timeline"]
    assert times["CreationDateTime"] <= times["StartDateTime"] < times["EndDateTime"]
    assert emr.api.describe_cluster(ClusterId=cluster)["Cluster"]["Tags"] == [{"Key": "run", "Value": "r1"}]
    late = emr.add(cluster, bash("true"))[0]
    emr.wait("COMPLETED", cluster, late)


def test_failed_step_has_its_cause_and_the_next_one_runs(emr: Emr) -> None:
    failing = bash("echo 'jobs.errors.CorpusError: no text in corpora/é'; echo noise >&2; exit 3")
    cluster = emr.create(failing, bash("echo fine"), alive=False)
    assert emr.wait("TERMINATED TERMINATED_WITH_ERRORS", cluster)["State"] == "TERMINATED"
    assert emr.status(cluster)["StateChangeReason"]["Code"] == "ALL_STEPS_COMPLETED"
    assert emr.states(cluster) == ["FAILED", "COMPLETED"]
    failed = emr.steps(cluster)[0]
    details = failed["Status"]["FailureDetails"]
    assert details["Message"] == "exit status 3: jobs.errors.CorpusError: no text in corpora/é"
    assert details["LogFile"] == f"s3://lake/logs/{cluster}/steps/{failed['Id']}/stderr.gz"
    assert emr.log(cluster, failed["Id"], "stderr") == "noise\n"
    assert "exit status 3" in emr.log(cluster, failed["Id"], "controller")


@pytest.mark.parametrize(
    ("on_failure", "cluster_state", "protected"),
    [
        ("CANCEL_AND_WAIT", "WAITING", False),
        ("TERMINATE_CLUSTER", "TERMINATED_WITH_ERRORS", False),
        ("TERMINATE_CLUSTER", "WAITING", True),
    ],
)
def test_failure_cancels_pending_steps(emr: Emr, on_failure: str, cluster_state: str, protected: bool) -> None:
    cluster = emr.create(
        bash("exit 1", on_failure),
        bash("echo never"),
        bash("echo never"),
        instances={"TerminationProtected": protected},
    )
    emr.wait(cluster_state, cluster)
    assert emr.states(cluster) == ["FAILED", "CANCELLED", "CANCELLED"]
    if cluster_state != "WAITING":
        assert emr.status(cluster)["StateChangeReason"]["Code"] == "STEP_FAILURE"
    emr.api.set_termination_protection(JobFlowIds=[cluster], TerminationProtected=False) if protected else None


def test_command_that_cannot_run_only_fails_its_step(emr: Emr) -> None:
    other_jar = {"Name": "jar", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "s3://lake/my.jar"}}
    missing = {"Jar": "command-runner.jar", "Args": ["spark-submit", "s3://lake/no/such.py"]}
    missing_step = {"Name": "missing", "ActionOnFailure": "CONTINUE", "HadoopJarStep": missing}
    cluster = emr.create(other_jar, missing_step, bash("no-such-command"), bash("true"))
    emr.wait("WAITING", cluster)
    assert emr.states(cluster) == ["FAILED", "FAILED", "FAILED", "COMPLETED"]
    messages = [step["Status"]["FailureDetails"]["Message"] for step in emr.steps(cluster)[:3]]
    assert "s3://lake/my.jar: the embedded EMR only runs steps of command-runner.jar" in messages[0]
    assert messages[1].startswith("cannot read s3://lake/no/such.py: ")
    assert messages[2].startswith("exit status 127: ")


def test_steps_have_this_server_and_a_folder_of_their_own(emr: Emr) -> None:
    export = {"Classification": "export", "Properties": {"FROM_CLUSTER": "yes"}}
    cluster = emr.create(
        bash("pwd; python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"),
        Configurations=[{"Classification": "spark-env", "Properties": {}, "Configurations": [export]}],
    )
    emr.wait("WAITING", cluster)
    step = emr.steps(cluster)[0]["Id"]
    folder, line = emr.log(cluster, step).splitlines()
    env = json.loads(line)
    assert folder.endswith(f"/{cluster}/steps/{step}/work")
    assert not Path(folder).exists()
    assert env["AWS_ENDPOINT_URL"] == emr.endpoint_url
    assert (env["NIGHTJAR_TEST"], env["FROM_CLUSTER"], env["FOR_STEPS"]) == ("inherited", "yes", "yes")
    assert "PYTHONPATH" not in env
    assert "AIRFLOW__SECRET" not in env


def test_logs_are_written_to_a_local_folder(emr: Emr, tmp_path: Path) -> None:
    logs = tmp_path / "my lake é" / "logs"
    cluster = emr.create(bash("echo to a file"), LogUri=logs.as_uri())
    emr.wait("WAITING", cluster)
    step = emr.steps(cluster)[0]["Id"]
    assert sorted(path.name for path in (logs / cluster / "steps" / step).iterdir()) == [
        "controller.gz",
        "stderr.gz",
        "stdout.gz",
    ]


def test_step_completes_when_its_logs_cannot_be_uploaded(emr: Emr) -> None:
    cluster = emr.create(bash("true"), LogUri="s3://no-such-bucket/logs")
    emr.wait("WAITING", cluster)
    assert emr.states(cluster) == ["COMPLETED"]


def test_idle_cluster_terminates_by_its_policy(emr: Emr) -> None:
    cluster = emr.create(bash("sleep 1.5"), AutoTerminationPolicy={"IdleTimeout": 1})
    assert emr.api.get_auto_termination_policy(ClusterId=cluster)["AutoTerminationPolicy"] == {"IdleTimeout": 1}
    assert "auto-termination" in emr.wait("TERMINATED", cluster)["StateChangeReason"]["Message"]
    assert emr.states(cluster) == ["COMPLETED"]  # longer than the timeout, but the cluster was not idle


def test_auto_termination_policy_can_be_put_and_removed(emr: Emr) -> None:
    cluster = emr.create()
    emr.wait("WAITING", cluster)
    emr.api.put_auto_termination_policy(ClusterId=cluster, AutoTerminationPolicy={"IdleTimeout": 60})
    assert emr.api.get_auto_termination_policy(ClusterId=cluster)["AutoTerminationPolicy"] == {"IdleTimeout": 60}
    emr.api.remove_auto_termination_policy(ClusterId=cluster)
    assert "AutoTerminationPolicy" not in emr.api.get_auto_termination_policy(ClusterId=cluster)
    emr.api.put_auto_termination_policy(ClusterId=cluster, AutoTerminationPolicy={"IdleTimeout": 1})
    emr.wait("TERMINATED", cluster)


def test_protected_cluster_is_not_terminated(emr: Emr) -> None:
    cluster = emr.create(instances={"TerminationProtected": True}, AutoTerminationPolicy={"IdleTimeout": 1})
    emr.wait("WAITING", cluster)
    with pytest.raises(ClientError, match="termination protected") as refused:
        emr.api.terminate_job_flows(JobFlowIds=[cluster])
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    time.sleep(1.2)
    assert emr.status(cluster)["State"] == "WAITING"
    emr.api.set_termination_protection(JobFlowIds=[cluster], TerminationProtected=False)
    emr.wait("TERMINATED", cluster)


def test_terminated_cluster_refuses_steps_and_may_be_terminated_again(emr: Emr) -> None:
    cluster = emr.create(bash("echo never"))
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    assert emr.wait("TERMINATED", cluster)["StateChangeReason"]["Code"] == "USER_REQUEST"
    assert emr.states(cluster) == ["CANCELLED"]
    with pytest.raises(ClientError, match="may not be modified"):
        emr.add(cluster, bash("true"))
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    assert emr.status(cluster)["State"] == "TERMINATED"


def test_clusters_are_listed_by_state_and_date_newest_first(emr: Emr) -> None:
    older, newer = emr.create(Name="twin"), emr.create(Name="twin")
    emr.wait("WAITING", older)
    emr.wait("WAITING", newer)
    listed = emr.api.list_clusters(ClusterStates=["WAITING"])["Clusters"]
    assert [item["Id"] for item in listed if item["Name"] == "twin"] == [newer, older]
    created = emr.status(newer)["Timeline"]["CreationDateTime"]
    recent = emr.api.list_clusters(CreatedAfter=created)["Clusters"]
    assert older not in {item["Id"] for item in recent}
    emr.api.terminate_job_flows(JobFlowIds=[older, newer])


def test_tags_and_instance_groups(emr: Emr) -> None:
    groups = [{"InstanceRole": role, "InstanceCount": 1, "InstanceType": "m5.xlarge"} for role in ("MASTER", "CORE")]
    cluster = emr.create(instances={"InstanceGroups": groups})
    assert len(emr.api.list_instances(ClusterId=cluster)["Instances"]) == 2
    emr.api.add_tags(ResourceId=cluster, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    emr.api.remove_tags(ResourceId=cluster, TagKeys=["a"])
    assert emr.api.describe_cluster(ClusterId=cluster)["Cluster"]["Tags"] == [{"Key": "b", "Value": "2"}]
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    emr.wait("TERMINATED", cluster)
    assert {
        group["Status"]["State"] for group in emr.api.list_instance_groups(ClusterId=cluster)["InstanceGroups"]
    } == {"TERMINATED"}


def test_invalid_request_leaves_no_cluster_behind(emr: Emr) -> None:
    master = {"InstanceRole": "MASTER", "InstanceCount": 2, "InstanceType": "m5.xlarge"}
    with pytest.raises(ClientError, match="exactly 3"):
        emr.create(Name="incomplete", instances={"InstanceGroups": [master]})
    assert "incomplete" not in {item["Name"] for item in emr.api.list_clusters()["Clusters"]}


def test_unknown_ids_are_errors_of_the_client(emr: Emr) -> None:
    cluster = emr.create()
    calls = [
        lambda: emr.api.describe_cluster(ClusterId="j-NONE"),
        lambda: emr.api.list_steps(ClusterId="j-NONE"),
        lambda: emr.api.add_job_flow_steps(JobFlowId="j-NONE", Steps=[bash("true")]),
        lambda: emr.api.terminate_job_flows(JobFlowIds=[cluster, "j-NONE"]),
        lambda: emr.api.cancel_steps(ClusterId="j-NONE", StepIds=["s-NONE"]),
        lambda: emr.api.describe_step(ClusterId=cluster, StepId="s-NONE"),
        lambda: emr.api.get_managed_scaling_policy(ClusterId=cluster),
    ]
    for call in calls:
        with pytest.raises(ClientError) as refused:
            call()
        assert refused.value.response["Error"]["Code"] == "InvalidRequestException"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    info = emr.api.cancel_steps(ClusterId=cluster, StepIds=["s-NONE"])["CancelStepsInfoList"][0]
    assert info["Status"] == "FAILED"
    until(lambda: emr.status(cluster)["State"] == "WAITING")
    emr.api.terminate_job_flows(JobFlowIds=[cluster])


def test_steps_run_at_the_same_time_as_the_concurrency_level_allows(emr: Emr, tmp_path: Path) -> None:
    meet = f"""touch '{tmp_path}'/$0; until [ $(ls '{tmp_path}' | wc -l) -ge 2 ]; do sleep 0.05; done"""
    steps = [command("bash", "-c", meet, name) for name in ("a", "b")]
    cluster = emr.create(*steps, bash("sleep 300"), bash("sleep 300"), bash("true"), StepConcurrencyLevel=2)
    until(lambda: emr.states(cluster) == ["COMPLETED", "COMPLETED", "RUNNING", "RUNNING", "PENDING"])
    assert emr.status(cluster)["State"] == "RUNNING"
    assert emr.api.modify_cluster(ClusterId=cluster, StepConcurrencyLevel=3)["StepConcurrencyLevel"] == 3
    until(lambda: emr.states(cluster)[4] == "COMPLETED")
    failed = emr.add(cluster, bash("exit 1"))[0]
    emr.wait("FAILED", cluster, failed)
    running = [step["Id"] for step in emr.steps(cluster) if step["Status"]["State"] == "RUNNING"]
    assert len(running) == 2
    emr.api.cancel_steps(ClusterId=cluster, StepIds=running[:1])
    emr.wait("CANCELLED", cluster, running[0])
    assert emr.status(cluster, running[1])["State"] == "RUNNING"
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    emr.wait("TERMINATED", cluster)
    assert emr.status(cluster, running[1])["State"] == "CANCELLED"


def test_clock_is_advanced_and_sped_up(emr: Emr, tmp_path: Path) -> None:
    control, end = Control(emr.endpoint_url), tmp_path / "end"
    step = bash(f"until [ -e '{end}' ]; do sleep 0.05; done")
    cluster = emr.create(step, AutoTerminationPolicy={"IdleTimeout": 7200})
    emr.wait("RUNNING", cluster)
    control.advance(7300)  # the step is real work, and the cluster is not idle while it runs
    end.touch()
    emr.wait("WAITING", cluster)
    control.advance(7000)
    time.sleep(0.2)
    assert emr.status(cluster)["State"] == "WAITING"
    control.speed(1000)
    assert "auto-termination" in emr.wait("TERMINATED", cluster, seconds=100)["StateChangeReason"]["Message"]
    control.speed(1)
    timeline = emr.status(cluster)["Timeline"]
    assert (timeline["EndDateTime"] - timeline["ReadyDateTime"]).total_seconds() > 14400
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="only moves forward"):
            control.advance(wrong)
    for wrong in (0, float("nan")):
        with pytest.raises(InputError, match="use a number above 0"):
            control.speed(wrong)


def test_logs_come_late_and_are_complete_when_the_server_stops(tmp_path: Path) -> None:
    with served("--log-delay-seconds", "180") as (server, emr):
        control, folder = Control(emr.endpoint_url), tmp_path / "logs"
        cluster = emr.create(bash("echo one"), LogUri=folder.as_uri())
        first = emr.steps(cluster)[0]["Id"]
        emr.wait("COMPLETED", cluster, first)
        control.advance(170)
        time.sleep(0.3)
        assert not folder.exists()
        control.advance(11)
        until((folder / cluster / "steps" / first / "stdout.gz").exists)
        second = emr.add(cluster, bash("echo two"))[0]
        emr.wait("COMPLETED", cluster, second)
        assert not (folder / cluster / "steps" / second).exists()
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=PATIENCE_SECONDS)
        assert (folder / cluster / "steps" / second / "stdout.gz").exists()


def test_fleets_and_groups_go_through_the_states_of_their_cluster(emr: Emr) -> None:
    control = Control(emr.endpoint_url)
    fault = control.fault("slow-start", seconds=3600)
    cluster = emr.create(bash("true"), instances={"InstanceFleets": FLEETS})

    def states(**given: str) -> list[str]:
        return [each["Status"]["State"] for each in emr.api.list_instances(ClusterId=cluster, **given)["Instances"]]

    until(lambda: states() == ["PROVISIONING"] * 5)
    control.advance(3600)
    emr.wait("WAITING", cluster)
    assert control.hits(fault) == 1
    assert states() == ["RUNNING"] * 5
    assert states(InstanceFleetType="TASK") == ["RUNNING"] * 2
    fleets = emr.api.list_instance_fleets(ClusterId=cluster)["InstanceFleets"]
    units = [(f["InstanceFleetType"], f["ProvisionedOnDemandCapacity"], f["ProvisionedSpotCapacity"]) for f in fleets]
    assert units == [("MASTER", 1, 0), ("CORE", 2, 0), ("TASK", 0, 2)]
    with pytest.raises(ClientError, match="mutually exclusive"):
        emr.api.list_instance_groups(ClusterId=cluster)
    change = {"InstanceFleetId": fleets[2]["Id"], "TargetSpotCapacity": 1, "TargetOnDemandCapacity": 1}
    emr.api.modify_instance_fleet(ClusterId=cluster, InstanceFleet=change)
    assert sorted(states(InstanceFleetType="TASK")) == ["RUNNING", "RUNNING", "TERMINATED"]
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    emr.wait("TERMINATED", cluster)
    assert set(states()) == {"TERMINATED"}
    control.clear()


def test_weights_decide_how_many_instances_a_fleet_has(emr: Emr) -> None:
    heavy = {**FLEETS[1], "TargetOnDemandCapacity": 5}
    heavy["InstanceTypeConfigs"] = [{"InstanceType": "m6i.2xlarge", "WeightedCapacity": 2}]
    cluster = emr.create(instances={"InstanceFleets": [FLEETS[0], heavy]})
    emr.wait("WAITING", cluster)
    assert len(emr.api.list_instances(ClusterId=cluster, InstanceFleetType="CORE")["Instances"]) == 3
    assert emr.api.list_instance_fleets(ClusterId=cluster)["InstanceFleets"][1]["ProvisionedOnDemandCapacity"] == 6
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
