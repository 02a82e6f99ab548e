"""The checks of an account find each fault that is made in a deployment, and none in a sound one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from infra.aws.check import availability, findings, network, permissions
from infra.aws.check.command import CHECKS
from infra.aws.check.findings import Check, Finding
from infra.aws.network import EMR_TAG
from infra.cli.main import main
from jobs.config import environment_settings, resolve
from tests.infra.aws.conftest import ENV, Deployment
from tests.infra.aws.policies import Call, allows

pytestmark = pytest.mark.slow


class Simulator:
    """IAM's simulation of policies, which moto lacks: the policies of the stack's roles, judged by our evaluator."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._asked: dict[str, Any] = {}

    def register(self, events: Any) -> None:
        """Answer SimulatePrincipalPolicy of all clients that are made from now on."""
        events.register("provide-client-params.iam.SimulatePrincipalPolicy", self._remember)
        events.register("before-call.iam.SimulatePrincipalPolicy", self._answer)

    def _remember(self, params: dict[str, Any], **_: Any) -> None:
        self._asked = params

    def _answer(self, **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        asked = self._asked
        context = {each["ContextKeyName"]: each["ContextKeyValues"][0] for each in asked["ContextEntries"]}
        role = asked["PolicySourceArn"].rpartition("-")[2]
        documents = [each for each in self._deployment.policies(role) if "Statement" in each]
        call = Call(asked["ActionNames"][0], asked["ResourceArns"][0], context)
        decision = "allowed" if allows(documents, call) else "implicitDeny"
        results = [{"EvalActionName": call.action, "EvalDecision": decision}]
        return AWSResponse("", 200, {}, None), {"EvaluationResults": results}


@pytest.fixture(scope="module")
def account(deployment: Deployment) -> Iterator[findings.Deployment]:
    """The deployment as aws-check sees it, in a VPC that has a way out."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("AWS_ENDPOINT_URL", deployment.endpoint)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        for name, value in deployment.environment.items():
            patch.setenv(name, value)
        boto3.setup_default_session()
        findings._client.cache_clear()
        stack.callback(findings._client.cache_clear)
        stack.callback(boto3.setup_default_session)
        Simulator(deployment).register(cast("Any", boto3.DEFAULT_SESSION).events)
        ec2 = boto3.client("ec2")
        config = resolve("s3://corpus", "demo", environment_settings())
        subnet = config.cluster.subnet_ids[0]
        gateway = ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType="private")["NatGateway"]["NatGatewayId"]
        for each in ec2.describe_route_tables()["RouteTables"]:
            ec2.create_route(RouteTableId=each["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway)
        [vpc] = {each["VpcId"] for each in ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]}
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        kms = boto3.client("kms")
        [key] = kms.list_keys()["Keys"]
        allow = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
        # moto's CloudFormation leaves a policy that its KMS cannot read.
        kms.put_key_policy(KeyId=key["KeyId"], PolicyName="default", Policy=json.dumps({"Statement": [allow]}))
        # A policy of AWS's own, which moto does not have.
        made = boto3.client("iam").create_policy(
            PolicyName="AmazonEMRServicePolicy_v2",
            PolicyDocument=json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeVpcs", "Resource": "*"}],
                }
            ),
        )
        boto3.client("iam").attach_role_policy(
            RoleName=f"nightjar-{ENV}-us-east-1-emr", PolicyArn=made["Policy"]["Arn"]
        )
        role = f"arn:aws:iam::123456789012:role/nightjar-{ENV}-us-east-1-airflow"
        lake = deployment.environment["NIGHTJAR_LAKE"]
        yield findings.Deployment(config, lake, role, "us-east-1")


def problems(check: Check, account: findings.Deployment) -> list[str]:
    return [str(found) for found in findings.run(check, account) if found.level == "problem"]


def test_a_sound_deployment_has_no_problem(account: findings.Deployment) -> None:
    found: dict[str, list[Finding]] = {}
    for check in CHECKS:
        found[check.__name__] = list(findings.run(check, account))
    assert [str(each) for group in found.values() for each in group if each.level == "problem"] == []
    # What moto does not know. On AWS these are checked as well.
    unknown = {name for name, group in found.items() if any(each.level == "unknown" for each in group)}
    assert unknown == {"check_quotas"}
    assert all(group for name, group in found.items() if name != "check_wheels")


def test_the_command_prints_a_line_for_each_finding(
    account: findings.Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["aws-check", "--airflow-role", str(account.airflow_arn)]) == 0
    printed = capsys.readouterr()
    assert all(re.match(r"(ok|unknown) +\S.*: ", line) for line in printed.out.splitlines())
    assert "no problem found, 1 things could not be checked" in printed.err
    monkeypatch.setenv("NIGHTJAR_SPARK_EXECUTORS", "99")
    assert main(["aws-check"]) == 2
    printed = capsys.readouterr()
    assert "problem  sizes: spark.executors (99)" in printed.out
    assert printed.err == "nightjar: problems found: 1; each line 'problem' above says what to do\n"


def changed(account: findings.Deployment, **cluster: Any) -> findings.Deployment:
    settings = {f"cluster.{key}": value for key, value in cluster.items()}
    config = resolve("s3://corpus", "demo", {**environment_settings(), **settings})
    return findings.Deployment(config, account.lake_uri, account.airflow_arn, account.region)


@pytest.mark.parametrize(
    ("check", "settings", "message"),
    [
        (network.check_subnets, {"subnet_ids": []}, "cluster.subnet_ids is empty"),
        (network.check_subnets, {"core_instances": 600}, r"has \d+ free addresses, but a cluster needs 603"),
        (network.check_security_groups, {"service_security_group": None}, "not all three security groups are set"),
        (availability.check_offered_types, {"primary_instance_types": ["m9z.xlarge"]}, r"these fleets: primary \(m9z"),
        (
            availability.check_release,
            {"release_label": "emr-spark-9.0.0"},
            r"Choose one of emr-spark-8\.0\.0, emr-spark-8\.1\.0$",
        ),
        (availability.check_release, {"release_label": "emr-spark-8.1.0"}, None),
        (permissions.check_security_configuration, {"security_configuration": None}, "is not set"),
        (
            availability.check_placement,
            {"core_instance_types": ["g5.12xlarge"]},
            None,
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(
    check: Check, settings: dict[str, Any], message: str | None, account: findings.Deployment
) -> None:
    found = problems(check, changed(account, **settings))
    assert bool(found) == bool(message), found
    assert message is None or re.search(message, found[0])


def test_an_unknown_release_is_said(account: findings.Deployment) -> None:
    first, *_ = findings.run(availability.check_release, changed(account, release_label="emr-spark-9.0.0"))
    assert (first.level, first.text.partition(" ")[0]) == ("unknown", "emr-spark-9.0.0")


Fault = tuple[Callable[[], Any], Callable[[], Any]]


def untag(account: findings.Deployment) -> Fault:
    ec2, name = boto3.client("ec2"), account.config.cluster.subnet_ids[1]
    tags: Any = [EMR_TAG]
    return lambda: ec2.delete_tags(Resources=[name], Tags=tags), lambda: ec2.create_tags(Resources=[name], Tags=tags)


def close_endpoint(account: findings.Deployment) -> Fault:
    ec2, group = boto3.client("ec2"), str(account.config.cluster.service_security_group)
    rule: Any = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}]
    return (
        lambda: ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rule),
        lambda: ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule),
    )


def no_names(account: findings.Deployment) -> Fault:
    ec2 = boto3.client("ec2")
    [subnet] = ec2.describe_subnets(SubnetIds=[account.config.cluster.subnet_ids[0]])["Subnets"]
    name = subnet["VpcId"]
    return (
        lambda: ec2.modify_vpc_attribute(VpcId=name, EnableDnsHostnames={"Value": False}),
        lambda: ec2.modify_vpc_attribute(VpcId=name, EnableDnsHostnames={"Value": True}),
    )


def no_way_out(account: findings.Deployment) -> Fault:
    ec2 = boto3.client("ec2")
    tables = ec2.describe_route_tables()["RouteTables"]
    to = {each["RouteTableId"]: each["Routes"][-1].get("NatGatewayId", "") for each in tables}
    cidr = "0.0.0.0/0"
    return (
        lambda: [ec2.delete_route(RouteTableId=name, DestinationCidrBlock=cidr) for name in to],
        lambda: [
            ec2.create_route(RouteTableId=name, DestinationCidrBlock=cidr, NatGatewayId=nat) for name, nat in to.items()
        ],
    )


def less_for_nodes(account: findings.Deployment) -> Fault:
    iam, role = boto3.client("iam"), f"nightjar-{ENV}-us-east-1-node"
    [policy] = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    arn = policy["PolicyArn"]
    return (
        lambda: iam.detach_role_policy(RoleName=role, PolicyArn=arn),
        lambda: iam.attach_role_policy(RoleName=role, PolicyArn=arn),
    )


def key_off(account: findings.Deployment) -> Fault:
    kms = boto3.client("kms")
    [key] = kms.list_keys()["Keys"]
    return lambda: kms.disable_key(KeyId=key["KeyId"]), lambda: kms.enable_key(KeyId=key["KeyId"])


@pytest.mark.parametrize(
    ("check", "fault", "message"),
    [
        (network.check_subnets, untag, r"lack the tag .* create-tags --resources subnet-"),
        (network.check_emr_endpoint, close_endpoint, r"admits 10\.0\.0\.0/16 at port 443\. Add such a rule to sg-"),
        (network.check_emr_endpoint, no_names, "enableDnsHostnames is off"),
        (network.check_ways_out, no_way_out, r"reaches neither the internet nor S3\. Deploy with CreateEndpoints=true"),
        (permissions.check_node_role, less_for_nodes, r"node must be allowed s3:PutObject on .*/lake/runs"),
        (permissions.check_bucket, key_off, r"is Disabled, so nothing in the lake can be read\. Enable"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_in_the_account_is_found_with_its_fix(
    check: Check, fault: Callable[[findings.Deployment], Fault], message: str, account: findings.Deployment
) -> None:
    make, undo = fault(account)
    make()
    try:
        found = problems(check, account)
    finally:
        undo()
    assert any(re.search(message, line) for line in found), found
    assert problems(check, account) == []


@pytest.mark.parametrize(
    ("request_name", "action"),
    [("HeadObject", "s3:GetObject"), ("ListAttachedRolePolicies", "iam:ListAttachedRolePolicies"),
     ("DescribeVpcs", "ec2:DescribeVpcs")],
)  # fmt: skip
def test_the_permission_is_that_of_the_request(account: findings.Deployment, request_name: str, action: str) -> None:
    def check_it(_: findings.Deployment) -> list[Finding]:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, request_name)

    (found,) = findings.run(check_it, account)
    refusal = f"{request_name} answered AccessDenied (no message)"
    assert str(found) == f"unknown  it: {refusal}. Give your own credentials the permission {action}"


def test_what_aws_refuses_is_unknown_and_names_the_permission(account: findings.Deployment) -> None:
    def refused(_: findings.Deployment) -> Iterator[Finding]:
        error = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}
        raise boto3.client("service-quotas").exceptions.ClientError(cast("Any", error), "GetServiceQuota")
        yield

    [found] = findings.run(refused, account)
    assert str(found) == (
        "unknown  refused: GetServiceQuota answered AccessDeniedException (no)."
        " Give your own credentials the permission servicequotas:GetServiceQuota"
    )
