"""Faults on demand, as a client with boto3 meets them."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from infra.emr.control import Control
from infra.emr.faults import KINDS
from jobs.errors import InputError
from tests.infra.emr.conftest import Emr, bash
from tests.support.waiting import until

pytestmark = pytest.mark.slow

FLEETS = [
    {
        "InstanceFleetType": role,
        "TargetOnDemandCapacity": on_demand,
        "TargetSpotCapacity": spot,
        "InstanceTypeConfigs": [{"InstanceType": "m6i.xlarge"}, {"InstanceType": "m6a.xlarge"}],
    }
    for role, on_demand, spot in (("MASTER", 1, 0), ("CORE", 2, 0), ("TASK", 0, 2))
]


@pytest.fixture
def control(emr: Emr) -> Iterator[Control]:
    control = Control(emr.endpoint_url)
    yield control
    control.clear()


def once(emr: Emr, service: str) -> Any:
    """Return a client that tries each call once."""
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client(service, endpoint_url=emr.endpoint_url, region_name="us-east-1", config=config)


def refused(call: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as error:
        call()
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def test_answers_of_emr_are_in_its_words(emr: Emr, control: Control) -> None:
    api = once(emr, "emr")
    cluster = emr.create(Name="words")
    control.fault("throttled", service="emr")
    assert refused(api.list_clusters) == (400, "ThrottlingException", "Rate exceeded")
    control.fault("denied", operation="Describe*")
    assert refused(lambda: api.describe_cluster(ClusterId=cluster)) == (
        400,
        "AccessDeniedException",
        "User: arn:aws:iam::123456789012:user/nightjar is not authorized to perform: elasticmapreduce:DescribeCluster"
        f" on resource: arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/{cluster} because no identity-based"
        " policy allows the elasticmapreduce:DescribeCluster action",
    )
    control.fault("unavailable")
    assert refused(api.list_clusters)[:2] == (503, "ServiceUnavailable")
    control.fault("error", status=500, code="InternalFailure", message="try again")
    assert refused(api.list_clusters) == (500, "InternalFailure", "try again")
    control.fault("not-found", operation="DescribeCluster")
    assert refused(lambda: api.describe_cluster(ClusterId=cluster))[2] == f"Cluster id '{cluster}' is not valid."
    assert [fault["hits"] for fault in control.faults()] == [1] * 5
    assert api.describe_cluster(ClusterId=cluster)["Cluster"]["Name"] == "words"


def test_answers_of_s3_are_in_its_words(emr: Emr, control: Control) -> None:
    s3 = once(emr, "s3")
    s3.put_object(Bucket="lake", Key="stats/a", Body=b"x" * 100_000)
    only = {"service": "s3", "match": {"Bucket": "lake", "Key": "stats/*"}}
    control.fault("throttled", **only)
    control.fault("denied", operation="GetObject", **only)
    control.fault("not-found", operation="GetObject", **only)
    control.fault("denied", operation="HeadObject", **only)
    control.fault("throttled", operation="PutObject", **only)
    s3.put_object(Bucket="lake", Key="other", Body=b"")

    def get() -> Any:
        return s3.get_object(Bucket="lake", Key="stats/a")

    assert refused(get) == (503, "SlowDown", "Please reduce your request rate.")
    assert refused(get) == (403, "AccessDenied", "Access Denied")
    assert refused(get) == (404, "NoSuchKey", "The specified key does not exist.")
    assert refused(lambda: s3.head_object(Bucket="lake", Key="stats/a"))[0] == 403
    assert refused(lambda: s3.put_object(Bucket="lake", Key="stats/b", Body=b"y" * 300_000))[1] == "SlowDown"
    assert len(get()["Body"].read()) == 100_000


def test_lost_answer_is_a_call_with_or_without_effect(emr: Emr, control: Control) -> None:
    api = once(emr, "emr")

    def create() -> None:
        api.run_job_flow(Name="lost", Instances={"KeepJobFlowAliveWhenNoSteps": True}, ReleaseLabel="emr-spark-8.0.0")

    def count() -> int:
        return sum(each["Name"] == "lost" for each in emr.api.list_clusters()["Clusters"])

    control.fault("dropped-before", operation="RunJobFlow", match={"Name": "lo?t"})
    with pytest.raises(ConnectionClosedError):
        create()
    assert count() == 0
    control.fault("dropped-after", operation="RunJobFlow")
    with pytest.raises(ConnectionClosedError):
        create()
    assert count() == 1
    control.fault("dropped-after", service="s3", operation="PutObject")
    with pytest.raises(ConnectionClosedError):
        once(emr, "s3").put_object(Bucket="lake", Key="put", Body=b"z" * 100_000)
    assert emr.s3.head_object(Bucket="lake", Key="put")["ContentLength"] == 100_000


def test_delay_count_and_skip(emr: Emr, control: Control) -> None:
    api = once(emr, "emr")
    control.fault("throttled", operation="ListClusters", skip=1, count=2)
    api.list_clusters()
    assert [refused(api.list_clusters)[1] for _ in range(2)] == ["ThrottlingException"] * 2
    api.list_clusters()
    control.clear()
    control.fault("throttled", operation="ListClusters")
    slow = control.fault("delayed", operation="ListClusters", seconds=0.4, count=None)
    started = time.monotonic()
    assert refused(api.list_clusters)[1] == "ThrottlingException"
    assert time.monotonic() - started > 0.4
    control.clear(slow)
    assert [fault["kind"] for fault in control.faults()] == ["throttled"]


def test_fault_hits_only_its_callers(emr: Emr, control: Control) -> None:
    emr.s3.put_object(Bucket="lake", Key="read-me", Body=b"text")
    script = (
        "import boto3, botocore.config as c; once = c.Config(retries={'total_max_attempts': 1});"
        "print(boto3.client('s3', config=once).get_object(Bucket='lake', Key='read-me')['Body'].read())"
    )
    control.fault("denied", service="s3", match={"Key": "read-me"}, callers=["step"], count=None)
    assert emr.s3.get_object(Bucket="lake", Key="read-me")["Body"].read() == b"text"
    cluster = emr.create(bash(f'python3 -c "{script}"'), alive=False)
    emr.wait("TERMINATED", cluster)
    (step,) = emr.steps(cluster)
    assert step["Status"]["State"] == "FAILED"
    assert "(AccessDenied) when calling the GetObject operation" in step["Status"]["FailureDetails"]["Message"]

    control.fault("denied", service="s3", operation="GetObject", match={"Key": "read-me"}, callers=["cluster"])
    jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "s3://lake/read-me"]}
    cluster = emr.create({"Name": "a", "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}, alive=False)
    emr.wait("TERMINATED", cluster)
    assert "cannot read s3://lake/read-me" in emr.steps(cluster)[0]["Status"]["FailureDetails"]["Message"]


def test_no_capacity_ends_the_cluster_or_is_replaced_by_the_next_type(emr: Emr, control: Control) -> None:
    control.fault("no-capacity", instance_types=["m6i.*"], count=None)
    cluster = emr.create(bash("true"), instances={"InstanceFleets": FLEETS[:2]})
    emr.wait("WAITING", cluster)
    types = {each["InstanceType"] for each in emr.api.list_instances(ClusterId=cluster)["Instances"]}
    assert types == {"m6a.xlarge"}
    emr.api.terminate_job_flows(JobFlowIds=[cluster])

    groups = [{"InstanceRole": "MASTER", "InstanceCount": 1, "InstanceType": "m6i.xlarge"}]
    cluster = emr.create(bash("echo never"), instances={"InstanceGroups": groups})
    status = emr.wait("TERMINATED_WITH_ERRORS", cluster)
    assert status["StateChangeReason"] == {
        "Code": "INTERNAL_ERROR",
        "Message": "EC2 is out of capacity for m6i.xlarge in availability zone us-east-1a. Learn more at"
        " https://docs.aws.amazon.com/console/elasticmapreduce/ERROR_noinstancecapacity",
    }
    assert status["ErrorDetails"][0]["ErrorCode"] == "INTERNAL_ERROR_EC2_INSUFFICIENT_CAPACITY_AZ"
    assert "ReadyDateTime" not in status["Timeline"]
    assert emr.states(cluster) == ["CANCELLED"]


def test_spot_capacity_is_awaited_and_then_replaced_or_the_cluster_ends(emr: Emr, control: Control) -> None:
    control.fault("no-capacity", markets=["SPOT"], count=None)
    for action, state in (("SWITCH_TO_ON_DEMAND", "WAITING"), ("TERMINATE_CLUSTER", "TERMINATED_WITH_ERRORS")):
        spot = {"TimeoutDurationMinutes": 10, "TimeoutAction": action}
        fleets = [*FLEETS[:2], {**FLEETS[2], "LaunchSpecifications": {"SpotSpecification": spot}}]
        cluster = emr.create(Name=action, instances={"InstanceFleets": fleets})
        time.sleep(0.5)
        assert emr.status(cluster)["State"] == "STARTING"
        control.advance(601)
        status = emr.wait(state, cluster)
        if action == "TERMINATE_CLUSTER":
            assert status["StateChangeReason"]["Code"] == "INSTANCE_FLEET_TIMEOUT"
        else:
            task = emr.api.list_instance_fleets(ClusterId=cluster)["InstanceFleets"][2]
            assert (task["ProvisionedOnDemandCapacity"], task["ProvisionedSpotCapacity"]) == (2, 0)


def test_failed_bootstrap_has_emrs_reason_and_logs(emr: Emr, control: Control) -> None:
    control.fault("bootstrap-failure", exit_code=3, match={"Name": "bad start"})
    fine = emr.create(Name="good start")
    cluster = emr.create(bash("echo never"), Name="bad start")
    status = emr.wait("TERMINATED_WITH_ERRORS", cluster)
    instance = emr.api.list_instances(ClusterId=cluster)["Instances"][0]["Ec2InstanceId"]
    assert status["StateChangeReason"] == {
        "Code": "BOOTSTRAP_FAILURE",
        "Message": f"On the master instance ({instance}), bootstrap action 1 returned a non-zero return code",
    }
    assert {"return-code": "3"} in status["ErrorDetails"][0]["ErrorData"]
    emr.s3.head_object(Bucket="lake", Key=f"logs/{cluster}/node/{instance}/bootstrap-actions/1/stderr.gz")
    emr.wait("WAITING", fine)
    emr.api.terminate_job_flows(JobFlowIds=[fine])

    control.fault("bootstrap-failure", roles=["CORE"])
    cluster = emr.create(instances={"InstanceFleets": FLEETS[:2]})
    assert emr.wait("TERMINATED_WITH_ERRORS", cluster)["StateChangeReason"]["Message"].startswith(
        "On 2 slave instances"
    )


def test_slow_start(emr: Emr, control: Control) -> None:
    control.fault("slow-start", seconds=3600)
    cluster = emr.create()
    time.sleep(0.4)
    assert emr.status(cluster)["State"] == "STARTING"
    control.advance(3601)
    emr.wait("WAITING", cluster)
    emr.api.terminate_job_flows(JobFlowIds=[cluster])


def test_lost_spot_instances_have_a_notice_and_are_replaced(emr: Emr, control: Control) -> None:
    ask = 'curl -s "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/spot/instance-action"'
    cluster = emr.create(bash(f"until {ask} | grep action; do sleep 0.1; done"), instances={"InstanceFleets": FLEETS})
    step = emr.steps(cluster)[0]["Id"]
    emr.wait("RUNNING", cluster, step)
    time.sleep(0.3)
    assert emr.status(cluster, step)["State"] == "RUNNING"
    control.fault("spot-loss", roles=["TASK"], instances=1, count=None)
    emr.wait("COMPLETED", cluster, step)
    notice = json.loads(emr.log(cluster, step))
    assert notice["action"] == "terminate"
    left = time.mktime(time.strptime(notice["time"], "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime(control.now()))
    assert 100 < left <= 120

    def states() -> list[str]:
        task = emr.api.list_instances(ClusterId=cluster, InstanceFleetType="TASK")["Instances"]
        return [each["Status"]["State"] for each in task]

    assert states() == ["RUNNING", "RUNNING"]
    control.advance(121)
    until(lambda: states() == ["TERMINATED", "RUNNING", "RUNNING"])
    control.advance(3600)  # a fault hits each cluster once
    time.sleep(0.2)
    assert states() == ["TERMINATED", "RUNNING", "RUNNING"]
    assert emr.status(cluster)["State"] == "WAITING"
    emr.api.terminate_job_flows(JobFlowIds=[cluster])


def test_cluster_without_core_nodes_ends(emr: Emr, control: Control) -> None:
    fleets = [FLEETS[0], {**FLEETS[1], "TargetOnDemandCapacity": 0, "TargetSpotCapacity": 2}]
    cluster = emr.create(bash("sleep 60"), instances={"InstanceFleets": fleets})
    emr.wait("RUNNING", cluster, emr.steps(cluster)[0]["Id"])
    control.fault("spot-loss", notice_seconds=0)
    status = emr.wait("TERMINATED_WITH_ERRORS", cluster)
    assert status["StateChangeReason"] == {
        "Code": "INSTANCE_FAILURE",
        "Message": "All slaves in the job flow were terminated due to Spot",
    }
    assert emr.states(cluster) == ["CANCELLED"]


def test_calls_are_counted_by_service_operation_and_caller(emr: Emr, control: Control) -> None:
    emr.s3.put_object(Bucket="lake", Key="counted.py", Body=b"print('counted')")
    control.forget_calls()
    emr.s3.copy_object(Bucket="lake", Key="copy.py", CopySource="lake/counted.py")
    emr.s3.list_objects_v2(Bucket="lake", Prefix="counted")
    emr.s3.delete_objects(Bucket="lake", Delete={"Objects": [{"Key": "copy.py"}]})
    upload = emr.s3.create_multipart_upload(Bucket="lake", Key="parts")["UploadId"]
    emr.s3.upload_part(Bucket="lake", Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    emr.s3.abort_multipart_upload(Bucket="lake", Key="parts", UploadId=upload)
    read = "import boto3; boto3.client('s3').get_object(Bucket='lake', Key='counted.py')"
    cluster = emr.create(bash(f'python3 -c "{read}"'), alive=False)
    emr.wait("TERMINATED", cluster)
    boto3.client("sts", endpoint_url=emr.endpoint_url).get_caller_identity()
    counted = {(c["service"], c["operation"], c["caller"]): c["count"] for c in control.calls()}
    assert counted.pop(("emr", "DescribeCluster", "client")) > 0
    assert counted == {
        ("emr", "RunJobFlow", "client"): 1,
        ("s3", "AbortMultipartUpload", "client"): 1,
        ("s3", "CopyObject", "client"): 1,
        ("s3", "CreateMultipartUpload", "client"): 1,
        ("s3", "DeleteObjects", "client"): 1,
        ("s3", "GetObject", "step"): 1,
        ("s3", "ListObjectsV2", "client"): 1,
        ("s3", "PutObject", "cluster"): 3,
        ("s3", "UploadPart", "client"): 1,
        ("sts", "GetCallerIdentity", "client"): 1,
    }


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ({"kind": "thunder"}, "kind 'thunder': use one of throttled, denied"),
        ({"kind": "throttled", "seconds": 3}, "a fault of kind throttled has no field seconds; use "),
        ({"kind": "delayed", "seconds": -1}, "seconds -1: use a number of seconds, 0 or more"),
        (
            {"kind": "denied", "callers": ["nobody"]},
            "callers ['nobody']: use a list of at least one of client, step, cluster",
        ),
        ({"kind": "denied", "count": 0}, "count 0: use a whole number above 0, or null"),
        (
            {"kind": "denied", "match": {"ClusterId": 3}},
            "match {'ClusterId': 3}: use an object whose values are strings",
        ),
        ({"kind": "error", "status": 200}, "status 200: use an HTTP status from 300 to 599"),
        ({"kind": "no-capacity", "operation": "RunJobFlow"}, "a fault of kind no-capacity has no field operation"),
    ],
)
def test_wrong_fault_is_one_clear_line(control: Control, fault: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InputError) as error:
        control.fault(**fault)
    assert str(error.value).startswith(wrong)
    assert "\n" not in str(error.value)
    assert control.faults() == []


def test_control_api_refuses_web_pages_and_unknown_paths(emr: Emr) -> None:
    def status(path: str, **headers: str) -> int:
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(emr.endpoint_url + path, headers=headers), timeout=10)
        return error.value.code

    assert status("/_nightjar/faults", Origin="https://example.org") == 403
    assert status("/_nightjar/storms") == 404
    assert status("/_nightjar/clusters/j-NONE/latest/meta-data/spot/instance-action") == 404


def test_every_kind_has_a_test() -> None:
    tested = {name for name in KINDS if f'"{name}"' in Path(__file__).read_text("utf-8")}
    assert tested == set(KINDS)
