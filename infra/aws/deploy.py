"""Create, update or delete a deployment on AWS: ``nightjar aws-deploy prod VpcId=vpc-1 SubnetIds=...``.

A deployment is a CloudFormation stack. The command prints the stack's change set before it executes the change set. At
the end, it prints the stack's outputs as environment variables for Airflow. Parameters that are not given keep their
values. boto3 finds the credentials and the region as usual. Every wait has a timeout.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError, WaiterError

from infra.aws import certificates, network
from jobs.errors import InputError, NightjarError

TEMPLATE = Path(__file__).parent / "template.yaml"
POLL_SECONDS, MAX_POLLS = 10, 120  # twenty minutes
TAG = "nightjar:project"
_GROUP = "AWS::EC2::SecurityGroup"


class DeployError(NightjarError):
    """CloudFormation did not bring the stack to the requested state."""


def deploy(stack: str, env: str, parameters: Sequence[str]) -> list[str]:
    """Create or update the stack, and return its outputs as lines of environment variables.

    Raises:
        DeployError: if CloudFormation fails or takes too long.
    """
    client: Any = boto3.client("cloudformation")
    exists = _status(client, stack) not in (None, "REVIEW_IN_PROGRESS")
    chosen = _parameters({"Project": env}, parameters, client, stack if exists else None)
    _change(client, stack, chosen, exists)
    outputs = read_outputs(client, stack)
    network.tag_for_emr(json.loads(outputs.get("SubnetIds", "[]")))
    certificates.upload_once(outputs["Lake"])
    return environment(outputs)


def destroy(stack: str) -> None:
    """Delete the stack. Keep the bucket and its encryption key, because the bucket has the only copy of the data."""
    client: Any = boto3.client("cloudformation")
    if _status(client, stack) is None:
        sys.stdout.write(f"stack {stack} does not exist\n")
        return
    kept = read_outputs(client, stack).get("Lake", "its bucket")
    resources = client.describe_stack_resources(StackName=stack)["StackResources"]
    groups = [each.get("PhysicalResourceId") for each in resources if each["ResourceType"] == _GROUP]
    network.release_groups([name for name in groups if name])
    client.delete_stack(StackName=stack)
    _wait(client, "stack_delete_complete", stack)
    sys.stdout.write(f"stack {stack} is deleted; kept: {kept} with its content, and the key that encrypts it\n")


def read_outputs(client: Any, stack: str) -> dict[str, str]:
    """Return the outputs of a stack: a dict from their names to their values."""
    [described] = client.describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def environment(outputs: dict[str, str]) -> list[str]:
    """Return the outputs as lines ``NAME=VALUE``. An output that is not a setting of the DAG becomes a comment line."""
    lines = []
    for key, value in sorted(outputs.items()):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).upper()
        if key.startswith("Airflow"):
            lines.append(f"# {name}={value}")
        else:
            prefix = "NIGHTJAR_" if key in ("Lake", "Project") else "NIGHTJAR_CLUSTER_"
            lines.append(f"{prefix}{name}={value}")
    return lines


def stack_name(env: str) -> str:
    """Return the name of a deployment's stack."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,20}", env):
        raise InputError(f"ENV={env}: use lower-case letters, digits and '-', at most 21 characters")
    return f"nightjar-{env}"


def _parameters(fixed: dict[str, str], given: Sequence[str], client: Any, existing: str | None) -> list[dict[str, Any]]:
    """Return the parameters of the change set, as CloudFormation expects them.

    Args:
        fixed: Parameters that the command sets itself.
        given: Parameters of the user, as ``Parameter=value``.
        client: A boto3 client of CloudFormation.
        existing: Name of the stack to update. Its other parameters keep their values. None for a new stack.
    """
    values = dict(fixed)
    for parameter in given:
        key, found, value = parameter.partition("=")
        if not found:
            raise InputError(f"{parameter}: write Parameter=value, for example VpcId=vpc-0abc")
        values[key] = value
    before = {}
    if existing:
        [stack] = client.describe_stacks(StackName=existing)["Stacks"]
        before = {each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", [])}
    vpc = values.get("VpcId", "" if "VpcCidr" in before else before.get("VpcId", ""))
    if vpc and "VpcCidr" not in values:
        values["VpcCidr"] = network.vpc_cidr(vpc)
    chosen: list[dict[str, Any]] = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
    return chosen + [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(before.keys() - values.keys())]


def _change(client: Any, stack: str, parameters: list[dict[str, Any]], exists: bool) -> None:
    """Create a change set, print it, execute it, and wait for the stack. If the set has no changes, only delete it."""
    name = f"nightjar-{int(time.time())}"
    client.create_change_set(
        StackName=stack,
        ChangeSetName=name,
        ChangeSetType="UPDATE" if exists else "CREATE",
        TemplateBody=TEMPLATE.read_text("utf-8"),
        Parameters=parameters,
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Tags=[{"Key": TAG, "Value": stack.removeprefix("nightjar-")}],
    )
    described = _await_change_set(client, stack, name)
    for change in described.get("Changes", []):
        resource = change["ResourceChange"]
        sys.stdout.write(f"{resource['Action']:8} {resource['ResourceType']:36} {resource['LogicalResourceId']}\n")
    if described["Status"] == "FAILED":
        client.delete_change_set(StackName=stack, ChangeSetName=name)
        reason = described.get("StatusReason", "no reason given")
        if "didn't contain changes" in reason or "No updates" in reason:
            sys.stdout.write(f"stack {stack} is up to date\n")
            return
        raise DeployError(f"stack {stack}: CloudFormation created no change set ({reason})")
    client.execute_change_set(StackName=stack, ChangeSetName=name)
    _wait(client, "stack_update_complete" if exists else "stack_create_complete", stack)


def _await_change_set(client: Any, stack: str, name: str) -> dict[str, Any]:
    for _ in range(MAX_POLLS):
        described: dict[str, Any] = client.describe_change_set(StackName=stack, ChangeSetName=name)
        if described["Status"] in ("CREATE_COMPLETE", "FAILED"):
            return described
        time.sleep(POLL_SECONDS / 5)
    raise DeployError(f"stack {stack}: its change set is not ready after {MAX_POLLS * POLL_SECONDS // 5} s; try again")


def _status(client: Any, stack: str) -> str | None:
    """Return the status of a stack, or None if there is no such stack."""
    try:
        [described] = client.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError" and "not exist" in str(error):
            return None
        raise
    return str(described["StackStatus"])


def _wait(client: Any, waiter: str, stack: str) -> None:
    """Wait for the stack with the boto3 waiter named `waiter`, such as ``stack_delete_complete``."""
    try:
        client.get_waiter(waiter).wait(StackName=stack, WaiterConfig={"Delay": POLL_SECONDS, "MaxAttempts": MAX_POLLS})
    except WaiterError as error:
        raise DeployError(f"stack {stack}: {error}; see the stack's events in the CloudFormation console") from None
