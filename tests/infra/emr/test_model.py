"""Every supported call against botocore's model of EMR, and the tables of the README."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from infra.emr.api import ACTIONS, MOTO_ACTIONS
from infra.emr.faults import KINDS
from infra.emr.validation import operation
from tests.infra.emr.answers import CheckedAnswers, check_answer
from tests.infra.emr.conftest import ROOT, Emr, bash
from tests.infra.emr.test_faults import FLEETS

README = (ROOT / "infra" / "emr" / "README.md").read_text("utf-8")
EVERYTHING: dict[str, Any] = {
    "Applications": [{"Name": "Spark"}],
    "BootstrapActions": [{"Name": "touch", "ScriptBootstrapAction": {"Path": "s3://lake/touch.sh", "Args": ["a b"]}}],
    "Configurations": [
        {"Classification": "spark-defaults", "Properties": {"spark.a": "1"}},
        {"Classification": "spark-env", "Configurations": [{"Classification": "export", "Properties": {"A": "b"}}]},
    ],
    "AutoTerminationPolicy": {"IdleTimeout": 3600},
    "EbsRootVolumeSize": 20,
    "JobFlowRole": "arn:aws:iam::123456789012:instance-profile/nodes",
    "ServiceRole": "arn:aws:iam::123456789012:role/service",
    "ScaleDownBehavior": "TERMINATE_AT_TASK_COMPLETION",
    "SecurityConfiguration": "encrypted",
    "Tags": [{"Key": "run", "Value": "r1"}, {"Key": "empty", "Value": ""}],
    "VisibleToAllUsers": True,
}
NETWORK = {
    "Ec2SubnetIds": ["subnet-1", "subnet-2"],
    "EmrManagedMasterSecurityGroup": "sg-1",
    "EmrManagedSlaveSecurityGroup": "sg-2",
    "ServiceAccessSecurityGroup": "sg-3",
}
GROUPS = [
    {"InstanceRole": "MASTER", "InstanceType": "m6i.xlarge", "InstanceCount": 1},
    {
        "InstanceRole": "CORE",
        "InstanceType": "m6i.xlarge",
        "InstanceCount": 2,
        "Market": "SPOT",
        "BidPrice": "0.1",
        "EbsConfiguration": {
            "EbsOptimized": True,
            "EbsBlockDeviceConfigs": [
                {"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": 32}, "VolumesPerInstance": 2}
            ],
        },
    },
]

pytestmark = pytest.mark.slow


def test_every_call_answers_as_the_model_says(emr: Emr, answers: CheckedAnswers) -> None:
    emr.s3.put_object(Bucket="lake", Key="touch.sh", Body=b'#!/bin/sh\necho "$1"\n')
    answers.succeeded.clear()
    api = emr.api
    fleets = emr.create(bash("exit 1"), bash("sleep 30"), instances={"InstanceFleets": FLEETS, **NETWORK}, **EVERYTHING)
    groups = emr.create(instances={"InstanceGroups": GROUPS}, StepConcurrencyLevel=2)
    for cluster, state in ((fleets, "RUNNING"), (groups, "WAITING")):
        api.describe_cluster(ClusterId=cluster)  # while it starts
        emr.wait(state, cluster)
        api.describe_cluster(ClusterId=cluster)
        api.list_instances(ClusterId=cluster)
        api.list_bootstrap_actions(ClusterId=cluster)
        api.list_steps(ClusterId=cluster)
    running = emr.steps(fleets)[1]["Id"]
    api.describe_step(ClusterId=fleets, StepId=running)
    api.add_tags(ResourceId=fleets, Tags=[{"Key": "more", "Value": "1"}])
    api.remove_tags(ResourceId=fleets, TagKeys=["more"])
    api.list_instance_fleets(ClusterId=fleets)
    found = api.list_instance_groups(ClusterId=groups)["InstanceGroups"]
    api.modify_instance_groups(
        ClusterId=groups, InstanceGroups=[{"InstanceGroupId": found[1]["Id"], "InstanceCount": 3}]
    )
    api.add_instance_groups(JobFlowId=groups, InstanceGroups=[{**GROUPS[0], "InstanceRole": "TASK"}])
    assert [g["RunningInstanceCount"] for g in api.list_instance_groups(ClusterId=groups)["InstanceGroups"]] == [
        1,
        3,
        1,
    ]
    task = api.list_instance_fleets(ClusterId=fleets)["InstanceFleets"][2]["Id"]
    api.modify_instance_fleet(ClusterId=fleets, InstanceFleet={"InstanceFleetId": task, "TargetSpotCapacity": 1})
    other = emr.create(instances={"InstanceFleets": FLEETS[:2]})
    api.add_instance_fleet(ClusterId=other, InstanceFleet=FLEETS[2])
    assert emr.status(other)["State"] in ("STARTING", "BOOTSTRAPPING", "WAITING")
    api.add_job_flow_steps(JobFlowId=groups, Steps=[bash("true")])
    api.cancel_steps(ClusterId=fleets, StepIds=[running, "s-NONE"])
    api.modify_cluster(ClusterId=groups, StepConcurrencyLevel=3)
    for cluster in (fleets, groups):
        api.set_termination_protection(JobFlowIds=[cluster], TerminationProtected=False)
        api.set_keep_job_flow_alive_when_no_steps(JobFlowIds=[cluster], KeepJobFlowAliveWhenNoSteps=True)
        api.set_visible_to_all_users(JobFlowIds=[cluster], VisibleToAllUsers=True)
        api.set_unhealthy_node_replacement(JobFlowIds=[cluster], UnhealthyNodeReplacement=True)
    api.put_auto_termination_policy(ClusterId=groups, AutoTerminationPolicy={"IdleTimeout": 60})
    api.get_auto_termination_policy(ClusterId=groups)
    api.remove_auto_termination_policy(ClusterId=groups)
    api.create_security_configuration(Name="encrypted", SecurityConfiguration="{}")
    api.describe_security_configuration(Name="encrypted")
    api.delete_security_configuration(Name="encrypted")
    rules = {"BlockPublicSecurityGroupRules": True}
    api.put_block_public_access_configuration(BlockPublicAccessConfiguration=rules)
    api.get_block_public_access_configuration()
    api.list_release_labels()
    api.list_supported_instance_types(ReleaseLabel="emr-7.0.0")
    api.terminate_job_flows(JobFlowIds=[fleets, groups, other])
    for cluster in (fleets, groups, other):
        emr.wait("TERMINATED", cluster)
        api.list_instances(ClusterId=cluster)
    api.list_clusters(ClusterStates=["TERMINATED"])
    assert answers.succeeded == set(ACTIONS) | MOTO_ACTIONS


def test_the_check_of_answers_finds_what_is_wrong() -> None:
    answer = {"Cluster": {"Id": 3, "Status": {"State": "HAPPY"}, "AutoTerminate": 0, "Colour": "red", "Tags": "none"}}
    wrong = "\n".join(check_answer("DescribeCluster", answer))
    for problem in (
        "Id is 3",
        "State is 'HAPPY', not one of",
        "AutoTerminate is 0",
        "Colour is not in",
        "Tags is 'none'",
    ):
        assert problem in wrong
    assert list(check_answer("ListReleaseLabels", {"ReleaseLabels": [None]}))
    assert list(check_answer("TerminateJobFlows", {"Done": True}))


def test_wrong_requests_are_refused_as_the_service_does(emr: Emr) -> None:
    cluster = emr.create()
    groups = {"InstanceGroups": GROUPS}
    wrong = {
        "Member must satisfy enum value set": lambda: emr.api.list_clusters(ClusterStates=["HAPPY"]),
        "mutually exclusive": lambda: emr.create(instances={"InstanceFleets": FLEETS, **groups}),
        "exactly one master": lambda: emr.create(instances={"InstanceGroups": GROUPS[1:]}),
        "must be above 0": lambda: emr.create(
            instances={"InstanceFleets": [{**FLEETS[0], "TargetOnDemandCapacity": 0}]}
        ),
        "ActionOnFailure must be CONTINUE": lambda: emr.create(bash("true", "CANCEL_AND_WAIT"), StepConcurrencyLevel=2),
        "not between 1 and 256": lambda: emr.api.modify_cluster(ClusterId=cluster, StepConcurrencyLevel=257),
        "at most 16 bootstrap actions": lambda: emr.create(BootstrapActions=EVERYTHING["BootstrapActions"] * 17),
        "Maximum number of active steps": lambda: emr.add(cluster, *[bash("true")] * 257),
        "Marker is not valid": lambda: emr.api.list_steps(ClusterId=cluster, Marker="?"),
    }
    for message, call in wrong.items():
        with pytest.raises(ClientError, match=message):
            call()
    with pytest.raises(ParamValidationError):
        emr.api.describe_cluster()
    unchecked = emr.unchecked()
    with pytest.raises(ClientError, match='Missing required parameter in input: "ClusterId"'):
        unchecked.describe_cluster()
    emr.api.terminate_job_flows(JobFlowIds=[cluster])


def test_lists_have_pages(emr: Emr) -> None:
    cluster = emr.create(*[bash("true", name=str(number)) for number in range(120)])
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    first = emr.api.list_steps(ClusterId=cluster)
    assert len(first["Steps"]) == 50
    pages = emr.api.get_paginator("list_steps").paginate(ClusterId=cluster)
    names = [step["Name"] for page in pages for step in page["Steps"]]
    assert names == [str(number) for number in reversed(range(120))]
    emr.wait("TERMINATED", cluster)


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the first table under a heading of the README, by the name in their first column."""
    table = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in re.findall(r"^\| `.*$", table, re.M)]
    return {row[0].strip("`"): row[1:] for row in found}


def test_readme_lists_the_calls_that_are_tested() -> None:
    assert set(rows("Calls")) == set(ACTIONS) | MOTO_ACTIONS
    assert all(operation(name) for name in rows("Calls"))


def test_readme_lists_the_faults_as_the_code_describes_them() -> None:
    assert {name: row[0] for name, row in rows("Faults").items()} == {name: kind.text for name, kind in KINDS.items()}


def test_readme_names_real_files() -> None:
    for path in re.findall(r"`(infra/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path
