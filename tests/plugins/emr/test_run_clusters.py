"""The clusters of a run: one at a time, replaced if lost, and ended for certain. Against the embedded EMR."""

import threading
import uuid
from datetime import UTC, datetime

import pytest

from jobs.config import resolve
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.prices.book import HOURS_OF_MONTH, Price, to_toml
from jobs.results.summary import read_bill
from nightjar.aws import store
from nightjar.emr import causes, requests, run_clusters, steps
from nightjar.emr.records import ClusterRecords
from nightjar.emr.run_clusters import RunClusters
from nightjar.errors import FinalError, MayStillRunError, UserError
from tests.support.emr_faults import change, refuse, say_ended
from tests.support.waiting import until

pytestmark = pytest.mark.slow

PACKAGE = "s3://lakes/packages/abc"


def config(**settings):
    return resolve("s3://lakes/text", "tiny", {key.replace("__", "."): value for key, value in settings.items()})


@pytest.fixture
def short_settling(monkeypatch):
    """Wait only a second for an answer that does not come."""
    monkeypatch.setattr(run_clusters, "SETTLE_SECONDS", 1.0)


@pytest.fixture
def identity(tmp_path):
    return requests.ClusterIdentity(Lake((tmp_path / "lake").as_uri()).run("one", project=f"p{uuid.uuid4().hex[:8]}"))


@pytest.fixture
def clusters(client, identity):
    return RunClusters(lambda: client, store(), identity, 0.1)


@pytest.fixture
def records(identity):
    return ClusterRecords(identity.run, store())


def state(client, cluster_id):
    return client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"]


def submit(client, identity, **changes):
    request = requests.run_job_flow(config(), identity, datetime.now(UTC), PACKAGE)
    return client.run_job_flow(**{**request, **changes})["JobFlowId"]


def test_cluster_is_created_once_and_ended(aws, clusters, records):
    created = clusters.acquire(config(), PACKAGE)
    assert clusters.acquire(config(), PACKAGE) == created
    assert [record.cluster_id for record in records.read()] == [created]
    assert clusters.end() == [created]
    assert state(aws, created) == "TERMINATED"
    assert clusters.end_leftovers() == []
    assert clusters.end() == [created]


def test_the_record_of_an_ended_cluster_has_the_time_of_its_instances(aws, clusters, records):
    created = clusters.acquire(config(cluster__core_instances=2), PACKAGE)
    assert (records.read()[0].instance_seconds, records.read()[0].is_embedded) == ({}, True)
    clusters.end()
    instances = aws.list_instances(ClusterId=created)["Instances"]
    times = [each["Status"]["Timeline"] for each in instances]
    assert len(times) == 3
    total = sum((each["EndDateTime"] - each["CreationDateTime"]).total_seconds() for each in times)
    used = records.read()[0].instance_seconds
    assert records.read()[0].used["is_embedded"]
    assert set(used) == {f"{each['InstanceType']} on demand" for each in instances}
    assert sum(used.values()) == pytest.approx(total, abs=0.1)
    clusters.end()
    assert records.read()[0].instance_seconds == used


def test_the_record_of_an_ended_cluster_bills_its_steps_with_the_prices_of_that_day(
    aws, clusters, records, identity, tmp_path, monkeypatch
):
    rows = [("ec2", "m6i.xlarge", 0.2), ("emr", "m6i.xlarge", 0.05), ("ebs", "gp3", 0.073)]
    region = aws.meta.region_name
    prices = tmp_path / "prices.toml"
    prices.write_bytes(to_toml([Price(kind=k, region=region, item=i, usd=u) for k, i, u in rows], "mine"))
    monkeypatch.setenv("NIGHTJAR_PRICES", str(prices))
    chosen = config(cluster__primary_instance_types=["m6i.xlarge"], cluster__core_instance_types=["m6i.xlarge"])
    store().publish(identity.run.config, chosen.to_json().encode())
    created = clusters.acquire(chosen, PACKAGE)
    assert records.read()[0].region == region
    runner = {"Jar": "command-runner.jar", "Args": ["bash", "-c", "sleep 2", identity.run.config]}
    step = {"Name": "train", "ActionOnFailure": "CONTINUE", "HadoopJarStep": runner}
    step_id = steps.submit_step(aws, {"JobFlowId": created, "Steps": [step]})
    while steps.describe_step(aws, created, step_id)["Status"]["State"] != "COMPLETED":
        threading.Event().wait(0.2)
    running = read_bill(identity.run, store(), is_running=True)
    assert (running.is_final, running.problem) == (False, None)
    clusters.end()
    prices.unlink()
    bill = read_bill(identity.run, store(), is_running=False)
    assert bill.is_final
    assert bill.instances.keys() == {"m6i.xlarge on demand"}
    assert 3 * 2 <= bill.steps["train"].seconds < bill.total.seconds
    hourly = 0.25 + 40 * 0.073 / HOURS_OF_MONTH
    assert bill.steps["train"].usd == pytest.approx(bill.steps["train"].seconds / 3600 * hourly, rel=0.01)
    assert bill.total.usd == pytest.approx(max(bill.total.seconds, 3 * 60) / 3600 * hourly, rel=0.01)


def test_a_cluster_ends_also_if_its_instances_may_not_be_listed(aws, client, clusters, records):
    created = clusters.acquire(config(), PACKAGE)
    refuse(client, "ListInstances")
    assert clusters.end() == [created]
    assert (records.read()[0].ended, records.read()[0].instance_seconds) == (True, {})
    assert read_bill(clusters._identity.run, store(), is_running=False).total.usd is None


def test_cleared_run_gets_a_new_cluster(clusters):
    first = clusters.acquire(config(), PACKAGE)
    clusters.end()
    with pytest.raises(FinalError, match=f"this run has ended its cluster {first}; clear the tasks sweep"):
        clusters.acquire(config(), PACKAGE)
    clusters.end(drop=True)
    assert clusters.acquire(config(), PACKAGE) != first
    clusters.end()


def test_duplicates_are_ended(aws, clusters, identity):
    """The response to the first request was lost, and boto3 repeated it."""
    lost = submit(aws, identity)
    kept = clusters.acquire(config(), PACKAGE)
    assert kept == lost
    second = submit(aws, identity)
    clusters._records.change(clusters._records.read()[0], dropped=True)
    created = clusters._create(config(), PACKAGE, 0)
    assert clusters.acquire(config(), PACKAGE) == created
    clusters.end()
    assert {state(aws, each) for each in (lost, second, created)} == {"TERMINATED"}


def test_cluster_with_the_same_name_in_another_lake_is_ignored(aws, clusters, identity):
    other = requests.ClusterIdentity(Lake("s3://lakes/other").run("one", project=identity.run.project))
    theirs = submit(aws, other)
    assert clusters.acquire(config(), PACKAGE) != theirs
    assert theirs not in clusters.end()
    assert state(aws, theirs) != "TERMINATED"
    aws.terminate_job_flows(JobFlowIds=[theirs])


def test_cluster_without_tags_is_found_by_its_id_and_ended(aws, clusters):
    created = clusters.acquire(config(), PACKAGE)
    tags = [tag["Key"] for tag in aws.describe_cluster(ClusterId=created)["Cluster"]["Tags"]]
    aws.remove_tags(ResourceId=created, TagKeys=tags)
    assert clusters.end() == [created]
    assert state(aws, created) == "TERMINATED"


def test_cluster_that_the_list_does_not_have_yet_is_ended(client, clusters):
    change(client, "ListClusters", lambda parsed: parsed.update(Clusters=[]))
    created = clusters.acquire(config(), PACKAGE)
    clusters.end()
    assert state(client, created) == "TERMINATED"


def test_create_that_is_under_way_is_waited_for(aws, clusters, identity, records):
    """RunJobFlow takes effect after the run was marked failed, and nobody receives its answer."""
    records.add()
    timer = threading.Timer(0.5, submit, (aws, identity))
    timer.start()
    [ended] = clusters.end()
    timer.join()
    assert state(aws, ended) == "TERMINATED"
    assert [record.cluster_id for record in records.read()] == [ended]


def test_answer_that_another_process_writes_is_used(aws, clusters, identity, records):
    """The list is late, and the worker that called RunJobFlow still writes the id."""
    asked = records.add()
    created = submit(aws, identity, Name="not yet in the list")
    timer = threading.Timer(0.4, lambda: records.change(asked, cluster_id=created))
    timer.start()
    assert clusters.end() == [created]
    timer.join()


@pytest.mark.usefixtures("short_settling")
def test_request_without_effect_is_said_and_does_not_count(clusters, records, caplog):
    records.add()
    assert clusters.end() == []
    assert "no answer, and EMR listed no such cluster for 1 s" in caplog.text
    assert records.read()[0].refused.startswith("no answer")
    assert clusters.end_leftovers() == []


def test_denied_end_of_one_cluster_is_named_and_the_other_is_ended(client, clusters, records, identity):
    first, second = submit(client, identity), submit(client, identity)
    for each in (first, second):
        records.add(cluster_id=each)
    allow = refuse(client, "TerminateJobFlows", when=lambda body: first in body)
    with pytest.raises(
        MayStillRunError, match=rf"cluster {first} may still run \(TerminateJobFlows: AccessDenied"
    ) as e:
        clusters.end()
    assert second not in str(e.value)
    assert state(client, second) == "TERMINATED"
    [line] = clusters.end_leftovers()
    assert first in line
    allow()
    assert clusters.end_leftovers() == []
    assert state(client, first) == "TERMINATED"


def test_protected_cluster_is_ended(aws, clusters):
    created = clusters.acquire(config(), PACKAGE)
    aws.set_termination_protection(JobFlowIds=[created], TerminationProtected=True)
    clusters.end()
    assert state(aws, created) == "TERMINATED"


def test_cluster_that_does_not_terminate_is_an_error(client, clusters, monkeypatch):
    created = clusters.acquire(config(), PACKAGE)
    say_ended(client, created, "USER_REQUEST", "", state="TERMINATING")
    monkeypatch.setattr(run_clusters.clusters.terminate_clusters, "__defaults__", (0.3,))
    with pytest.raises(MayStillRunError, match=f"{created} may still run .it is still TERMINATING after the timeout"):
        clusters.end()


def test_damaged_record_is_named_and_the_rest_is_ended(aws, clusters, identity):
    created = clusters.acquire(config(), PACKAGE)
    store().write_bytes(join(identity.run.clusters, "0007.json"), b"{")
    with pytest.raises(MayStillRunError, match=r"0007\.json cannot be read"):
        clusters.end()
    assert state(aws, created) == "TERMINATED"


def test_without_the_record_the_id_that_airflow_knows_is_ended_if_its_tags_agree(client, clusters, identity):
    mine, other = submit(client, identity, Name="x"), submit(client, identity, Name="y", Tags=[])
    assert clusters.end([mine, other]) == [mine]
    assert state(client, other) != "TERMINATED"
    client.terminate_job_flows(JobFlowIds=[other])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("INSTANCE_FLEET_TIMEOUT", "Timed out waiting for instances"),
        ("VALIDATION_ERROR", "The requested number of on-demand instances is not available: insufficient capacity"),
        ("BOOTSTRAP_FAILURE", "On the master instance (i-1), bootstrap action 1 returned a non-zero return code"),
    ],
)
def test_cluster_without_capacity_or_environment_is_replaced_by_other_instances(client, clusters, code, message):
    asked = []
    client.meta.events.register("provide-client-params.emr.RunJobFlow", lambda params, **_: asked.append(params))
    setting = config(
        cluster__core_instance_types=["m6i.xlarge", "m7i.xlarge"], cluster__primary_instance_types=["c5.large"]
    )
    ids = []
    for _ in range(2):
        ids.append(clusters.acquire(setting, PACKAGE))
        say_ended(client, ids[-1], code, message)
    with pytest.raises(FinalError) as caught:
        clusters.acquire(setting, PACKAGE)
    assert ids[0] in str(caught.value)
    assert message in str(caught.value)
    assert "2 clusters of this run ended" in str(caught.value)
    types = [
        [
            [each["InstanceType"] for each in fleet["InstanceTypeConfigs"]]
            for fleet in request["Instances"]["InstanceFleets"]
        ]
        for request in asked
    ]
    assert types == [[["c5.large"], ["m6i.xlarge", "m7i.xlarge"]], [["c5.large"], ["m7i.xlarge"]]]
    client.terminate_job_flows(JobFlowIds=ids)


def test_lost_cluster_is_replaced_a_bounded_number_of_times(client, clusters):
    ids = []
    for _ in range(3):
        ids.append(clusters.acquire(config(), PACKAGE))
        say_ended(client, ids[-1], "INSTANCE_FAILURE", "The master instance failed")
    assert len(set(ids)) == 3
    with pytest.raises(FinalError, match=rf"cluster {ids[0]} is .* The master instance failed \(INSTANCE_FAILURE\)"):
        clusters.acquire(config(), PACKAGE)
    client.terminate_job_flows(JobFlowIds=ids)


def test_cluster_that_emr_does_not_know_is_replaced_and_counts_as_ended(clusters, records):
    records.add(cluster_id="j-0GONE0GONE0")
    created = clusters.acquire(config(), PACKAGE)
    assert clusters.end() == ["j-0GONE0GONE0", created]


def test_idle_cluster_is_replaced(aws, clusters):
    first = clusters.acquire(config(), PACKAGE)
    aws.put_auto_termination_policy(ClusterId=first, AutoTerminationPolicy={"IdleTimeout": 60})
    end = causes._kind("USER_REQUEST", "Terminated by its auto-termination policy after 60 idle seconds")
    assert end == "lost"
    clusters.end()


def test_cluster_that_was_ended_by_hand_is_not_replaced(aws, clusters):
    created = clusters.acquire(config(), PACKAGE)
    aws.terminate_job_flows(JobFlowIds=[created])
    for _ in range(2):
        with pytest.raises(FinalError, match=rf"cluster {created} .* ended by hand .*Terminated by user request"):
            clusters.acquire(config(), PACKAGE)
    clusters.end(drop=True)
    assert clusters.acquire(config(), PACKAGE) != created
    clusters.end()


def test_refused_request_is_the_users_mistake(client, clusters, records):
    refuse(client, "RunJobFlow", "ValidationException")
    message = r"refuses the cluster \(RunJobFlow: ValidationException: .*\); check the settings cluster\.\*"
    with pytest.raises(UserError, match=message):
        clusters.acquire(config(), PACKAGE)
    assert "ValidationException" in records.read()[0].refused
    assert clusters.end() == []


@pytest.mark.usefixtures("short_settling")
def test_throttled_request_is_asked_again(client, clusters, records):
    allow = refuse(client, "RunJobFlow", "ThrottlingException")
    with pytest.raises(client.exceptions.ClientError, match="Throttling"):
        clusters.acquire(config(), PACKAGE)
    assert records.read()[0].is_open
    allow()
    created = clusters.acquire(config(), PACKAGE)
    assert clusters.end() == [created]


def test_cluster_of_the_users_own_is_used_and_never_ended(aws, clusters, identity):
    other = requests.ClusterIdentity(Lake(identity.run.lake_uri).run("one", project="theirs"))
    theirs = submit(aws, other)
    setting = config(cluster__job_flow_id=theirs)
    assert clusters.acquire(setting, PACKAGE) == theirs
    sleep = {"Jar": "command-runner.jar", "Args": ["sleep", "60"]}
    args = ["bash", "-c", "sleep 60", "train", "--config", identity.run.config]
    mine = {"Name": "train", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {**sleep, "Args": args}}
    [theirs_step] = aws.add_job_flow_steps(JobFlowId=theirs, Steps=[{**mine, "HadoopJarStep": sleep}])["StepIds"]
    [my_step] = aws.add_job_flow_steps(JobFlowId=theirs, Steps=[mine])["StepIds"]
    assert clusters.end([theirs]) == []
    assert state(aws, theirs) != "TERMINATED"
    assert steps.describe_step(aws, theirs, my_step)["Status"]["State"] == "CANCELLED"
    assert steps.describe_step(aws, theirs, theirs_step)["Status"]["State"] in ("PENDING", "RUNNING")
    aws.terminate_job_flows(JobFlowIds=[theirs])
    with pytest.raises(UserError, match=rf"cluster\.job_flow_id: cluster {theirs} is TERM"):
        clusters.acquire(setting, PACKAGE)


def test_step_that_a_killed_try_has_asked_for_is_cancelled_on_a_cluster_of_the_users_own(aws, clusters, identity):
    theirs = submit(aws, requests.ClusterIdentity(Lake(identity.run.lake_uri).run("one", project="theirs")))
    clusters.acquire(config(cluster__job_flow_id=theirs), PACKAGE)
    asked = {"cluster_id": theirs, "asked": datetime.now(UTC).isoformat(), "step_id": None, "refused": None}
    store().write_json(identity.run.submission("train", 1), asked)
    args = ["bash", "-c", "sleep 60", "train", "--config", identity.run.config, "--attempt", "1"]
    mine = {"Name": "train", "ActionOnFailure": "CONTINUE"}
    mine["HadoopJarStep"] = {"Jar": "command-runner.jar", "Args": args}
    late = threading.Timer(1, lambda: aws.add_job_flow_steps(JobFlowId=theirs, Steps=[mine]))
    late.start()
    assert clusters.end() == []
    late.join()
    until(lambda: [step["Status"]["State"] for step in aws.list_steps(ClusterId=theirs)["Steps"]] == ["CANCELLED"])
    aws.terminate_job_flows(JobFlowIds=[theirs])


def test_time_to_live_below_the_limits_of_the_steps_is_raised(clusters, client, caplog):
    asked = []
    client.meta.events.register("provide-client-params.emr.RunJobFlow", lambda params, **_: asked.append(params))
    clusters.acquire(config(cluster__time_to_live_hours=12), PACKAGE)
    assert "cluster.time_to_live_hours is 12, less than the steps may take; it is raised to 25" in caplog.text
    hours = (requests.expiry_time(asked[0]) - datetime.now(UTC)).total_seconds() / 3600
    assert 24.9 < hours <= 25
    clusters.end()
