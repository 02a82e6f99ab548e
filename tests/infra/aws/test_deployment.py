"""A stack is deployed, its outputs configure the DAG, and its roles allow exactly the calls of a whole run."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError

from infra.airflow.environment import environment
from infra.aws import deploy, network
from infra.cli.main import main
from infra.emr.client import open_store
from jobs.config import EVALUATE, STEPS
from jobs.errors import InputError
from jobs.lake.identity import DEFAULT, PROJECT
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join, relative_name
from tests.infra.aws.conftest import CORPUS_BUCKET, ENV, Deployment
from tests.infra.aws.policies import Call, allows
from tests.infra.aws.recorder import OWN_TAG, Request, calls
from tests.support import real_job
from tests.support.headless import run_dag
from tests.support.prose import prose

pytestmark = pytest.mark.timeout(1800)

EMBED = {"train.embeddings": "embed", "embed.size": 64, "embed.epochs": 1}
COMPARED = {"windows.split": "fixed", "tokenize.max_piece_bytes": 1024}
CONF = {**real_job.CONF, **EMBED, **COMPARED, "corpus": f"s3://{CORPUS_BUCKET}/some poems é"}
TRAINING = [step for step in STEPS if step != EVALUATE]
AIRFLOW_KEY = "embedded"  # see infra.airflow.environment; all other keys belong to steps and nodes


@dataclass(frozen=True)
class DeployedRun:
    """A finished run of the DAG with the real job: its folder and log, and its cluster as described by EMR."""

    run: Run
    log: str
    stats_dir: Path
    cluster: dict[str, Any]
    steps: list[str]
    bootstrap_actions: list[Any]
    received: list[Request]
    """The requests that AWS received in the run."""


@pytest.fixture(scope="module")
def done(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> DeployedRun:
    """A run of the DAG with the real job in the deployment."""
    folder = tmp_path_factory.mktemp("run")
    boto3.client("s3", endpoint_url=deployment.endpoint).put_object(
        Bucket=CORPUS_BUCKET, Key="some poems é/poems.txt", Body=prose(1, 6000)
    )
    deployment.received.clear()
    settings = {**environment(folder, "file:///nowhere", deployment.endpoint), **deployment.environment}
    settings |= {"NIGHTJAR_POLL_SECONDS": "0.3", "NIGHTJAR_STATS_DIR": str(folder / "stats")}
    run_id, log = f"run-{uuid.uuid4().hex[:8]}", folder / "dag.log"
    assert run_dag(CONF, run_id, settings, log) == 0, log.read_text()[-3000:]
    received = list(deployment.received)
    emr = boto3.client("emr", endpoint_url=deployment.endpoint)
    [found] = [each for each in emr.list_clusters()["Clusters"] if each["Name"].endswith(run_id)]
    return DeployedRun(
        Lake(settings["NIGHTJAR_LAKE"]).run(run_id, DEFAULT, settings.get("NIGHTJAR_PROJECT") or PROJECT),
        log.read_text(),
        folder / "stats",
        cast("dict[str, Any]", emr.describe_cluster(ClusterId=found["Id"])["Cluster"]),
        [step["Name"] for step in reversed(emr.list_steps(ClusterId=found["Id"])["Steps"])],
        emr.list_bootstrap_actions(ClusterId=found["Id"])["BootstrapActions"],
        received,
    )


@pytest.mark.long
@pytest.mark.airflow
def test_run_leaves_its_results_and_the_first_champion(deployment: Deployment, done: DeployedRun) -> None:
    store, lake = open_store(deployment.endpoint), Lake(done.run.lake_uri)
    real_job.assert_complete(done.run, store, TRAINING, done.stats_dir)
    assert "unigram" in done.log
    assert re.search(r"Promoted: \d\.\d{4} bits per byte, the first champion", done.log)
    assert store.read_json(lake.pipeline().champion)["run_id"] == done.run.run_id
    names = [
        relative_name(file.uri, join(lake.uri, "packages")) for file in store.list_files(join(lake.uri, "packages"))
    ]
    [package] = {name.partition("/")[0] for name in names}
    assert {f"{package}/{name}" for name in ("jobs.zip", "launcher.py", "_manifest.json")} <= set(names)


def test_command_prints_the_settings_of_the_dag(deployment: Deployment) -> None:
    settings = deployment.environment
    assert settings["NIGHTJAR_LAKE"] == "s3://nightjar-prod-123456789012-us-east-1/lake"
    assert settings["NIGHTJAR_CLUSTER_SECURITY_CONFIGURATION"] == "nightjar-prod-tls-true"
    assert len(json.loads(settings["NIGHTJAR_CLUSTER_SUBNET_IDS"])) == 2
    assert any("AIRFLOW_ROLE_ARN=arn:aws:iam::" in line for line in deployment.printed)
    certificates = boto3.client("s3", endpoint_url=deployment.endpoint).head_object(
        Bucket="nightjar-prod-123456789012-us-east-1", Key="security/node-certificates.zip"
    )
    assert certificates["ContentLength"] > 3000


SMALL = {
    "Parameters": {"Project": {"Type": "String"}, "Owner": {"Type": "String", "Default": "ann"}},
    "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Ref": "Project"}}}},
    "Outputs": {
        "Lake": {"Value": {"Fn::Sub": "s3://${Bucket}/lake"}},
        "Project": {"Value": {"Ref": "Project"}},
        "AirflowRoleArn": {"Value": {"Ref": "Owner"}},
    },
}


def test_commands_create_and_delete_a_stack(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Uses a small template, because moto deletes the roles of the real one before their policies, and then fails."""
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    monkeypatch.setattr(deploy, "TEMPLATE", tmp_path / "small.json")
    monkeypatch.setenv("AWS_ENDPOINT_URL", deployment.endpoint)
    assert main(["aws-deploy", "other", "Owner=bob"]) == 0
    assert set(capsys.readouterr().out.splitlines()[-3:]) == {
        "NIGHTJAR_LAKE=s3://other/lake",
        "NIGHTJAR_PROJECT=other",
        "# AIRFLOW_ROLE_ARN=bob",
    }
    s3 = boto3.client("s3")
    s3.delete_object(Bucket="other", Key="security/node-certificates.zip")  # moto ignores the DeletionPolicy
    assert main(["aws-deploy", "other", "--destroy"]) == 0
    assert "kept: s3://other/lake" in capsys.readouterr().out
    assert main(["aws-deploy", "other", "--destroy"]) == 0
    assert "does not exist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Bad Name"], "use lower-case letters"),
        (["", "--destroy"], "use lower-case letters"),
        (["x", "VpcId"], "Parameter=value"),
    ],
)
def test_wrong_argument_is_one_line(
    words: list[str],
    message: str,
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", deployment.endpoint)
    assert main(["aws-deploy", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.long
@pytest.mark.airflow
def test_dag_runs_with_the_stacks_roles_bucket_and_tags(deployment: Deployment, done: DeployedRun) -> None:
    settings, run = deployment.environment, done.cluster
    assert run["Status"]["State"] == "TERMINATED"
    assert done.steps == TRAINING
    assert run["ServiceRole"] == settings["NIGHTJAR_CLUSTER_SERVICE_ROLE"]
    assert run["Ec2InstanceAttributes"]["IamInstanceProfile"] == settings["NIGHTJAR_CLUSTER_INSTANCE_PROFILE"]
    assert run["SecurityConfiguration"] == settings["NIGHTJAR_CLUSTER_SECURITY_CONFIGURATION"]
    assert run["LogUri"].startswith(settings["NIGHTJAR_LAKE"])
    tags = {tag["Key"]: tag["Value"] for tag in run["Tags"]}
    assert tags["nightjar:project"] == ENV
    assert tags["for-use-with-amazon-emr-managed-policies"] == "true"
    [action] = done.bootstrap_actions
    bucket, key = action["ScriptPath"].removeprefix("s3://").split("/", 1)
    script = boto3.client("s3", endpoint_url=deployment.endpoint).get_object(Bucket=bucket, Key=key)["Body"].read()
    assert script == Path("plugins/nightjar/packaging/bootstrap.sh").read_bytes()


@pytest.fixture(scope="module")
def needed(deployment: Deployment, done: DeployedRun) -> dict[str, set[Call]]:
    """The calls of the run by the role that makes them on AWS."""
    assert done.steps
    received = {
        "airflow": [request for request in done.received if request.key == AIRFLOW_KEY],
        "node": [request for request in done.received if request.key in ("local", "testing", "")],
    }
    # Without the calls that this test itself made after the run.
    found = {role: calls(requests, ENV) for role, requests in received.items()}
    found["node"] = {call for call in found["node"] if call.action.startswith("s3:")}
    return found


@pytest.mark.long
@pytest.mark.airflow
def test_roles_allow_every_call_of_a_run(deployment: Deployment, needed: dict[str, set[Call]]) -> None:
    assert {"elasticmapreduce:RunJobFlow", "iam:PassRole", "s3:PutObject"} <= {c.action for c in needed["airflow"]}
    assert {"s3:GetObject", "s3:PutObject", "s3:ListBucket"} <= {call.action for call in needed["node"]}
    for role, made in needed.items():
        documents = deployment.policies(role)
        refused = sorted(f"{role}: {call}" for call in made if not allows(documents, call))
        assert refused == []


@pytest.mark.long
@pytest.mark.airflow
def test_same_calls_on_foreign_resources_are_refused(deployment: Deployment, needed: dict[str, set[Call]]) -> None:
    bucket = deployment.environment["NIGHTJAR_LAKE"].split("/")[2]
    for role, made in needed.items():
        documents = deployment.policies(role)
        foreign = [_foreign(call, bucket) for call in made]
        allowed = sorted(str(call) for call in foreign if call and allows(documents, call))
        assert allowed == []
    lake = f"arn:aws:s3:::{bucket}/lake"
    node, airflow = deployment.policies("node"), deployment.policies("airflow")
    own = "pipelines/poems/champion.json"
    assert allows(airflow, Call("s3:PutObject", f"{lake}/{own}"))
    for name in ("models/x/config.json", own, "packages/x/jobs.zip", "security/node-certificates.zip"):
        assert not allows(node, Call("s3:PutObject", f"{lake}/{name}"))
        assert not allows(node, Call("s3:DeleteObject", f"{lake}/{name}"))
    for documents in (node, airflow):  # without it, S3 answers 403 for a missing object
        assert allows(documents, Call("s3:ListBucket", f"arn:aws:s3:::{bucket}"))
    assert not allows(airflow, Call("s3:DeleteObject", f"{lake}/models/x/model.safetensors"))
    tls_key = f"arn:aws:s3:::{bucket}/security/node-certificates.zip"
    assert not allows(airflow, Call("s3:GetObject", tls_key))
    assert allows(node, Call("s3:GetObject", tls_key))  # each node fetches it
    assert not allows(node, Call("s3:GetObject", f"{tls_key}.old"))
    assert not allows(airflow, Call("s3:GetObject", f"arn:aws:s3:::{bucket}/elsewhere"))


def test_no_tag_makes_a_foreign_cluster_the_projects(deployment: Deployment) -> None:
    airflow = deployment.policies("airflow")
    cluster = "arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/j-FOREIGN"
    ours, request = {OWN_TAG: ENV}, "aws:RequestTag/nightjar:project"
    adopt = lambda tags: allows(airflow, Call("elasticmapreduce:AddTags", cluster, tags))  # noqa: E731 - a short name
    assert not adopt({request: ENV})
    assert not adopt({request: ENV, OWN_TAG: "other"})
    assert not adopt({"aws:RequestTag/name": "x", OWN_TAG: "other"})
    assert not adopt({**ours, request: "other"})  # nor gives one of ours away
    assert adopt({**ours, "aws:RequestTag/nightjar:ended": "reaper"})
    assert adopt({**ours, request: ENV})


def test_idle_time_is_limited_before_the_cluster_has_tags(deployment: Deployment) -> None:
    cluster = "arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/j-NEW"
    assert allows(deployment.policies("airflow"), Call("elasticmapreduce:PutAutoTerminationPolicy", cluster))


def test_key_is_used_through_s3_alone(deployment: Deployment) -> None:
    [key] = boto3.client("kms", endpoint_url=deployment.endpoint).list_keys()["Keys"]
    for role in ("node", "airflow"):
        decrypt = lambda context, role=role: allows(  # noqa: E731 - a short name
            deployment.policies(role), Call("kms:Decrypt", key["KeyArn"], context)
        )
        assert decrypt({"kms:ViaService": "s3.us-east-1.amazonaws.com"})
        assert not decrypt({"kms:ViaService": "rds.us-east-1.amazonaws.com"})
        assert not decrypt({})


def test_network_is_that_of_emr_spark_8(deployment: Deployment) -> None:
    ec2 = boto3.client("ec2", endpoint_url=deployment.endpoint)
    group = deployment.environment["NIGHTJAR_CLUSTER_SERVICE_SECURITY_GROUP"]
    subnets = json.loads(deployment.environment["NIGHTJAR_CLUSTER_SUBNET_IDS"])
    [endpoint] = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    assert endpoint["ServiceName"] == "aws.api.us-east-1.emr-service-cell01"
    assert endpoint["PrivateDnsEnabled"]
    assert (endpoint["SubnetIds"], [each["GroupId"] for each in endpoint["Groups"]]) == (subnets, [group])
    [found] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    [rule] = found["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"][0]["CidrIp"]) == (443, 443, "10.0.0.0/16")
    tags = ec2.describe_tags(Filters=[{"Name": "key", "Values": [network.EMR_TAG["Key"]]}])["Tags"]
    tagged = {tag["ResourceId"] for tag in tags if tag["Value"] == "true"}
    names = ("PRIMARY", "CORE", "SERVICE")
    groups = {deployment.environment[f"NIGHTJAR_CLUSTER_{name}_SECURITY_GROUP"] for name in names}
    assert tagged >= {endpoint["VpcId"], *subnets, *groups}


def test_groups_are_released_from_the_rules_that_emr_adds(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", deployment.endpoint)
    ec2, emr = boto3.client("ec2"), boto3.client("emr")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    first, second = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"] for name in ("one", "two")
    )
    for group, other in ((first, second), (second, first)):  # as EMR does: all TCP between the nodes
        pair: Any = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": other}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[pair])
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[pair])
    service, tags = "aws.api.us-east-1.emr-service-cell01", [{"Key": "Name", "Value": "emr-service-vpce"}]
    made: Any = {"VpcId": vpc, "ServiceName": service, "VpcEndpointType": "Interface", "SecurityGroupIds": [first]}
    endpoint = ec2.create_vpc_endpoint(**made, TagSpecifications=[{"ResourceType": "vpc-endpoint", "Tags": tags}])
    nodes: Any = {"EmrManagedMasterSecurityGroup": first, "EmrManagedSlaveSecurityGroup": second}
    nodes |= {"MasterInstanceType": "m6i.xlarge", "InstanceCount": 1, "KeepJobFlowAliveWhenNoSteps": True}
    cluster = emr.run_job_flow(Name="x", Instances=nodes, ReleaseLabel="emr-spark-8.0.0")["JobFlowId"]
    with pytest.raises(InputError, match=f"{cluster} still use the security groups .* terminate-clusters"):
        network.release_groups([first, second])
    emr.terminate_job_flows(JobFlowIds=[cluster])
    emr.get_waiter("cluster_terminated").wait(ClusterId=cluster, WaiterConfig={"Delay": 1})
    network.release_groups([first, second])
    for found in ec2.describe_security_groups(GroupIds=[first, second])["SecurityGroups"]:
        rules = [*found["IpPermissions"], *found["IpPermissionsEgress"]]
        assert not any(rule["UserIdGroupPairs"] for rule in rules)
    made_by_emr = endpoint["VpcEndpoint"]["VpcEndpointId"]
    assert made_by_emr in capsys.readouterr().out
    [left] = ec2.describe_vpc_endpoints(VpcEndpointIds=[made_by_emr])["VpcEndpoints"]
    assert left["State"] == "deleted"


def _foreign(call: Call, bucket: str) -> Call | None:
    """Return the same call on another bucket, role or project's cluster, or None if it has no resource."""
    if call.action.startswith("s3:"):
        return replace(
            call, resource=call.resource.replace(bucket, "foreign").replace(f":::{CORPUS_BUCKET}", ":::foreign")
        )
    if call.action == "iam:PassRole":
        return replace(call, resource="arn:aws:iam::123456789012:role/admin")
    if OWN_TAG in call.context and call.action != "elasticmapreduce:DescribeCluster":
        return replace(call, context={OWN_TAG: "other"})
    if "aws:RequestTag/nightjar:project" in call.context:
        return replace(call, context={"aws:RequestTag/nightjar:project": "other"})
    return None


def test_roles_may_only_be_passed_to_their_service(deployment: Deployment) -> None:
    role = deployment.environment["NIGHTJAR_CLUSTER_SERVICE_ROLE"]
    to = lambda service: Call("iam:PassRole", role, {"iam:PassedToService": service})  # noqa: E731 - a short name for both calls
    assert allows(deployment.policies("airflow"), to("elasticmapreduce.amazonaws.com"))
    assert not allows(deployment.policies("airflow"), to("lambda.amazonaws.com"))


def test_failed_stack_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not yours"}}, "DescribeStacks")

    monkeypatch.setattr(deploy, "_status", refuse)
    started = time.monotonic()
    assert main(["aws-deploy", "prod", "VpcId=vpc-1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert time.monotonic() - started < 30
