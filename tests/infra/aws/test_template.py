"""Assertions on the parts of the template that moto does not enforce, and a linter for the rest."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from infra.aws import certificates, deploy
from infra.aws.plan import plan, problems
from jobs.config import preset_names
from jobs.config.sections.cluster import ClusterConfig

pytestmark = pytest.mark.slow

Template = dict[str, Any]


def properties(template: Template, name: str) -> dict[str, Any]:
    found: dict[str, Any] = template["Resources"][name]["Properties"]
    return found


def test_cfn_lint_finds_nothing() -> None:
    command = [str(Path(sys.executable).with_name("cfn-lint")), str(deploy.TEMPLATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_bucket_requires_tls_and_is_not_public(template: Template) -> None:
    statements = properties(template, "BucketPolicy")["PolicyDocument"]["Statement"]
    conditions = [statement["Condition"] for statement in statements]
    assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
    assert {"NumericLessThan": {"s3:TlsVersion": "1.2"}} in conditions
    assert {statement["Effect"] for statement in statements} == {"Deny"}
    bucket = properties(template, "Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    for name in ("Bucket", "Key"):
        assert template["Resources"][name]["DeletionPolicy"] == "Retain"


def test_only_logs_and_optionally_runs_expire(template: Template) -> None:
    rules = properties(template, "Bucket")["LifecycleConfiguration"]["Rules"]
    chosen = rules[-1]["Fn::If"]
    assert chosen[0] == "ExpireRuns"
    assert template["Parameters"]["RunExpirationDays"]["Default"] == 0
    expiring = [rule["Prefix"] for rule in [*rules[:-1], chosen[1]] if "ExpirationInDays" in rule]
    assert expiring == ["lake/logs/", "lake/runs/"]
    assert not any(rule.get("Prefix", "x") in ("", "lake/") for rule in rules[:-1])
    assert not any("models" in rule.get("Prefix", "") for rule in rules[:-1])
    assert rules[0] == {
        "Id": "IncompleteUploads",
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
    }


def test_security_groups_allow_ingress_from_addresses_only_to_emrs_endpoint(template: Template) -> None:
    open_to = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::EC2::SecurityGroup":
            rules = resource["Properties"].get("SecurityGroupIngress", [])
            assert not any("CidrIpv6" in rule for rule in rules)
            open_to |= {(name, rule["FromPort"]): rule["CidrIp"] for rule in rules if "CidrIp" in rule}
        if resource["Type"] == "AWS::EC2::SecurityGroupIngress":
            assert "SourceSecurityGroupId" in resource["Properties"]
    assert open_to == {("ServiceGroup", 443): {"Ref": "VpcCidr"}}


def test_ports_of_releases_before_emr_spark_8_are_closed(template: Template) -> None:
    ports = {
        rule.get("FromPort")
        for resource in template["Resources"].values()
        for rule in [resource["Properties"], *resource["Properties"].get("SecurityGroupIngress", [])]
    }
    assert ports <= {None, 443}
    egress = properties(template, "PrimaryGroup")["SecurityGroupEgress"]
    assert {(rule["FromPort"], rule["CidrIp"]) for rule in egress} == {(443, "0.0.0.0/0")}


def test_no_role_trusts_the_whole_account(template: Template) -> None:
    assert template["Resources"]["AirflowRole"]["Condition"] == "HasPrincipal"
    [trust] = properties(template, "AirflowRole")["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"AWS": {"Ref": "AirflowPrincipalArn"}}
    pattern = re.compile(template["Parameters"]["AirflowPrincipalArn"]["AllowedPattern"])
    assert pattern.fullmatch("arn:aws:iam::123456789012:role/mwaa")
    assert not pattern.fullmatch("arn:aws:iam::123456789012:root")


def test_data_is_encrypted_at_rest_and_in_transit(template: Template) -> None:
    chosen = properties(template, "Encryption")["SecurityConfiguration"]
    encryption = chosen["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    assert (
        encryption["AtRestEncryptionConfiguration"]["LocalDiskEncryptionConfiguration"]["EnableEbsEncryption"] is True
    )
    assert encryption["EnableInTransitEncryption"] == {"Fn::If": ["EncryptTransit", True, False]}
    assert template["Parameters"]["TransitEncryption"]["Default"] == "true"
    assert chosen["InstanceMetadataServiceConfiguration"]["MinimumInstanceMetadataServiceVersion"] == 2


def test_policies_have_conditions(template: Template) -> None:
    def statement(policy: str, sid: str) -> dict[str, Any]:
        statements = properties(template, policy)["PolicyDocument"]["Statement"]
        return next(each for each in statements if each.get("Sid") == sid)

    project = {"Ref": "Project"}
    own = {"StringEquals": {"aws:ResourceTag/nightjar:project": project}}
    assert statement("AirflowPolicy", "UseOwnClusters")["Condition"] == own
    new = {"StringEquals": {"aws:RequestTag/nightjar:project": project}}
    assert statement("AirflowPolicy", "StartOwnClusters")["Condition"] == new
    assert "iam:PassedToService" in statement("AirflowPolicy", "GiveEmrItsRole")["Condition"]["StringLike"]
    assert "iam:PassedToService" in statement("ServicePolicy", "GiveNodesTheirRole")["Condition"]["StringLike"]
    assert "ec2:Vpc" in statement("ServicePolicy", "NodesInTheSubnets")["Condition"]["ArnEquals"]
    [trust] = properties(template, "ServiceRole")["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


def test_all_resources_are_only_allowed_where_aws_requires_it(template: Template) -> None:
    stars = {
        statement["Sid"]: statement["Action"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::IAM::ManagedPolicy"
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
        if statement.get("Resource") == "*"
    }
    assert stars == {"StartOwnClusters": "elasticmapreduce:RunJobFlow", "FindClusters": "elasticmapreduce:ListClusters"}


def test_budget_covers_tagged_resources(template: Template) -> None:
    assert template["Resources"]["Budget"]["Condition"] == "HasEmail"
    budget = properties(template, "Budget")
    assert budget["Budget"]["BudgetLimit"]["Amount"] == {"Ref": "MonthlyBudgetUSD"}
    assert {each["Notification"]["NotificationType"] for each in budget["NotificationsWithSubscribers"]} == {
        "ACTUAL",
        "FORECASTED",
    }


def test_every_output_is_a_setting(template: Template) -> None:
    lines = deploy.environment(dict.fromkeys(template["Outputs"], "x"))
    names = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    cluster = {f"NIGHTJAR_CLUSTER_{key.upper()}" for key in ClusterConfig.model_fields}
    assert names <= {"NIGHTJAR_LAKE", "NIGHTJAR_PROJECT", *cluster}
    described = {output["Description"] for output in template["Outputs"].values()}
    assert names <= described


def test_certificates_have_the_files_that_emr_requires() -> None:
    archive = zipfile.ZipFile(io.BytesIO(certificates.make(["*.ec2.internal", "*.eu-west-1.compute.internal"])))
    assert set(archive.namelist()) == {"privateKey.pem", "certificateChain.pem", "trustedCertificates.pem"}
    made = x509.load_pem_x509_certificate(archive.read("certificateChain.pem"))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "*.ec2.internal" in names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("preset", preset_names())
def test_plan_of_every_preset_is_valid(preset: str) -> None:
    requests = plan("s3://lakes/x", "s3://lakes/texts", preset, {"cluster.task_instances": 2})
    assert [operation for operation, _ in requests] == ["RunJobFlow", *["AddJobFlowSteps"] * (len(requests) - 1)]
    assert {"tokenize", "train"} <= {request["Steps"][0]["Name"] for _, request in requests[1:]}
    assert [line for operation, request in requests for line in problems(operation, request)] == []
    assert problems("RunJobFlow", {"Name": "x", "Instances": {"InstanceFleets": [{"InstanceFleetType": 3}]}})
