"""EMR requests, validated against botocore's model of the service."""

from datetime import UTC, datetime, timedelta

import botocore.session
import pytest
from botocore.validate import ParamValidator

from jobs.config import resolve
from jobs.lake.layout import Lake, Run
from nightjar.emr import requests
from nightjar.packaging import PYTHON

REGION = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
RUN = Lake("s3://lakes/prefix").run("scheduled__2026-03-01T02:00:00+00:00", "default")
PACKAGE = "s3://lakes/prefix/packages/" + "0" * 64
IDENTITY = requests.ClusterIdentity(RUN)
FULL = {
    "cluster__subnet_ids": ["subnet-1"],
    "cluster__task_instances": 3,
    "cluster__primary_security_group": "sg-1",
    "cluster__core_security_group": "sg-2",
    "cluster__service_security_group": "sg-3",
    "cluster__security_configuration": "nightjar",
    "cluster__wheelhouse": "s3://lakes/wheelhouses/" + "1" * 64,
}


def config(**settings):
    return resolve("s3://lakes/text", "tiny", {key.replace("__", "."): value for key, value in settings.items()})


def problems(operation, request):
    model = botocore.session.get_session().get_service_model("emr").operation_model(operation)
    return ParamValidator().validate(request, model.input_shape).generate_report()


@pytest.mark.parametrize("settings", [{}, FULL])
def test_requests_are_valid(settings):
    assert problems("RunJobFlow", requests.run_job_flow(config(**settings), IDENTITY, NOW, PACKAGE)) == ""
    assert problems("AddJobFlowSteps", requests.add_step("j-1", "train", config(), RUN, "s3://lakes/p")) == ""
    assert problems("CancelSteps", requests.cancel_steps("j-1", ["s-1", "s-2"])) == ""


def test_validator_finds_mistakes():
    assert "Instances" in problems("RunJobFlow", {"Name": "x", "Instances": {"InstanceGroups": "many"}})


def test_cluster_follows_the_configuration():
    request = requests.run_job_flow(
        config(cluster__core_instances=7, cluster__subnet_ids=["subnet-1", "subnet-2"]), IDENTITY, NOW, PACKAGE
    )
    assert request["Name"] == "nightjar-lab/default/scheduled__2026-03-01T02=3A00=3A00=2B00=3A00"
    assert request["Applications"] == [{"Name": "Spark"}]
    assert request["LogUri"] == "s3://lakes/prefix/logs/"
    assert request["Instances"]["Ec2SubnetIds"] == ["subnet-1", "subnet-2"]
    assert [fleet["TargetOnDemandCapacity"] for fleet in request["Instances"]["InstanceFleets"]] == [1, 7]
    assert request["AutoTerminationPolicy"] == {"IdleTimeout": 900}


def test_tags_identify_the_owner_and_the_expiry_time():
    request = requests.run_job_flow(
        config(cluster__time_to_live_hours=30.5, cluster__owner="ann@lab"), IDENTITY, NOW, PACKAGE
    )
    tags = requests.tags_of(request)
    assert tags == {
        "nightjar:project": "lab",
        "nightjar:pipeline": "default",
        "nightjar:run_id": "scheduled__2026-03-01T02=3A00=3A00=2B00=3A00",
        "nightjar:lake": "s3://lakes/prefix",
        "nightjar:owner": "ann@lab",
        "nightjar:expires": "2026-03-02T08:30:00+00:00",
        "for-use-with-amazon-emr-managed-policies": "true",
    }
    assert IDENTITY.owns(request)
    assert not requests.ClusterIdentity(Run("s3://other", RUN.folder)).owns(request)
    assert requests.expiry_time(request) == NOW + timedelta(hours=30.5)


@pytest.mark.parametrize(
    ("settings", "hours"),
    [
        ({}, 1 + 4 * 6),
        ({"train__embeddings": "embed", "embed__size": 32, "model__embedding_size": 32}, 1 + 5 * 6),
        ({"cluster__time_to_live_hours": 40}, 40),
        ({"cluster__time_to_live_hours": 12}, 1 + 4 * 6),
        ({"cluster__step_timeout_seconds": 3600, "cluster__time_to_live_hours": 2}, 1 + 4),
    ],
)
def test_a_cluster_lives_as_long_as_its_steps_may(settings, hours):
    assert requests.time_to_live(config(**settings)) == timedelta(hours=hours)


def test_the_next_choice_leaves_out_the_first_types_but_never_the_last():
    given = config(cluster__core_instance_types=["m6i.xlarge"])
    assert requests.num_choices(given.cluster) == 3
    left = [requests.without_types(given, choice).cluster for choice in range(4)]
    assert [len(each.primary_instance_types) for each in left] == [3, 2, 1, 1]
    assert {each.core_instance_types for each in left} == {("m6i.xlarge",)}


def test_names_and_tags_fit_the_limits_of_aws():
    request = requests.run_job_flow(
        config(), requests.ClusterIdentity(Lake("file:///a%20b").run("x" * 400, "p" * 250)), NOW, PACKAGE
    )
    assert len(request["Name"]) == 256
    assert requests.tags_of(request)["nightjar:lake"] == "file:///a=2520b"


def test_step_is_a_spark_submit_of_the_package():
    settings = {"spark__executors": 3, "spark__executor_cores": 2, "spark__driver_memory": "4g"}
    request = requests.add_step("j-1", "train", config(**settings), RUN, "s3://lakes/packages/abc", 2)
    [step] = request["Steps"]
    arguments = step["HadoopJarStep"]["Args"]
    assert (step["Name"], step["ActionOnFailure"]) == ("train", "CONTINUE")
    conf = [arguments[index + 1] for index, word in enumerate(arguments) if word == "--conf"]
    assert set(conf) == {
        "spark.executor.instances=3",
        "spark.executor.cores=2",
        "spark.dynamicAllocation.enabled=false",
        "spark.speculation=false",
        "spark.shuffle.service.enabled=false",
        "spark.yarn.heterogeneousExecutors.enabled=false",
        "spark.serializer=org.apache.spark.serializer.KryoSerializer",
        "spark.executor.memoryOverhead=3606m",  # with the JVM, half of 11,712 - 896 MB on each of two nodes
    }
    assert arguments[arguments.index("--executor-memory") + 1] == "1802m"
    assert arguments[arguments.index("--driver-memory") + 1] == "4g"
    assert arguments[arguments.index("--deploy-mode") + 1] == "client"
    assert arguments[-10:] == [
        "--py-files",
        "s3://lakes/packages/abc/jobs.zip",
        "s3://lakes/packages/abc/launcher.py",
        "train",
        "--config",
        RUN.config,
        "--attempt",
        "2",
        "--owner",
        "j-1",
    ]
    assert requests.attempt_of({"Config": {"Args": arguments}}) == (RUN, 2)
    assert requests.attempt_of({"Config": {"Args": ["spark-submit", "x.py"]}}) is None


def test_yarn_starts_no_second_driver_in_cluster_mode():
    settings = {"spark__deploy_mode": "cluster", "spark__driver_memory": "3g"}
    [step] = requests.add_step("j-1", "train", config(**settings), RUN, "s3://lakes/p")["Steps"]
    arguments = step["HadoopJarStep"]["Args"]
    assert arguments[arguments.index("--deploy-mode") + 1] == "cluster"
    assert {"spark.yarn.maxAppAttempts=1", "spark.driver.memoryOverhead=3g"} <= set(arguments)


@pytest.mark.parametrize(
    ("timeline", "late"),
    [
        ({}, False),
        ({"CreationDateTime": NOW - timedelta(seconds=50)}, False),
        ({"CreationDateTime": NOW - timedelta(seconds=101)}, True),
        ({"CreationDateTime": NOW - timedelta(seconds=500), "StartDateTime": NOW - timedelta(seconds=9)}, False),
        ({"CreationDateTime": NOW - timedelta(seconds=50), "StartDateTime": NOW - timedelta(seconds=11)}, True),
    ],
)
def test_step_has_a_limit_for_its_start_and_one_for_its_run(timeline, late):
    assert requests.is_overdue({"Status": {"Timeline": timeline}}, NOW, limit_seconds=10, start_seconds=100) is late


def test_only_task_nodes_are_spot_and_fall_back_to_on_demand():
    instances = requests.run_job_flow(config(**FULL), IDENTITY, NOW, PACKAGE)["Instances"]
    primary, core, task = instances["InstanceFleets"]
    assert [fleet["TargetSpotCapacity"] for fleet in (primary, core, task)] == [0, 0, 3]
    assert task["LaunchSpecifications"]["SpotSpecification"]["TimeoutAction"] == "SWITCH_TO_ON_DEMAND"
    assert all(len(fleet["InstanceTypeConfigs"]) > 1 for fleet in (primary, core, task))
    assert instances["ServiceAccessSecurityGroup"] == "sg-3"


def test_bootstrap_action_builds_the_environment_that_spark_uses():
    request = requests.run_job_flow(config(**FULL), IDENTITY, NOW, PACKAGE)
    [action] = request["BootstrapActions"]
    assert action["ScriptBootstrapAction"] == {
        "Path": f"{PACKAGE}/bootstrap.sh",
        "Args": ["--package", PACKAGE, "--torch", "cpu", "--wheels", FULL["cluster__wheelhouse"]],
    }
    defaults = {each["Classification"]: each["Properties"] for each in request["Configurations"]}["spark-defaults"]
    assert {defaults[f"spark.pyspark.{key}"] for key in ("python", "driver.python")} == {PYTHON}
    for off in ("dynamicAllocation", "shuffle.service", "yarn.heterogeneousExecutors"):
        assert defaults[f"spark.{off}.enabled"] == "false"
    assert {defaults[f"spark.{key}"] for key in ("authenticate", "network.crypto.enabled")} == {"true"}


def test_every_process_learns_its_region():
    request = requests.run_job_flow(config(), IDENTITY, NOW, PACKAGE, "eu-west-1")
    assert problems("RunJobFlow", request) == ""
    found = {each["Classification"]: each for each in request["Configurations"]}
    [export] = found["spark-env"]["Configurations"]
    assert export == {"Classification": "export", "Properties": REGION}  # of a driver in client mode
    defaults = found["spark-defaults"]["Properties"]
    for place in ("executorEnv", "yarn.appMasterEnv"):
        assert {name: defaults[f"spark.{place}.{name}"] for name in REGION} == REGION


def test_gpu_instances_install_cuda():
    request = requests.run_job_flow(config(cluster__core_instance_types=["g5.xlarge"]), IDENTITY, NOW, PACKAGE)
    assert request["BootstrapActions"][0]["ScriptBootstrapAction"]["Args"][-2:] == ["--torch", "cuda"]


def test_oldest_first_sorts_by_creation_time_then_by_id():
    def cluster(name, seconds):
        return {"Id": name, "Status": {"Timeline": {"CreationDateTime": NOW + timedelta(seconds=seconds)}}}

    found = requests.oldest_first([cluster("j-A", 2), cluster("j-C", 1), cluster("j-B", 1)])
    assert [each["Id"] for each in found] == ["j-B", "j-C", "j-A"]
