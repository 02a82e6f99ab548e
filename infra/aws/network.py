"""Reads and changes network resources outside a deployment's stack.

These resources are the user's VPC and subnets, and what EMR adds: rules in security groups, and a VPC endpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import boto3
from botocore.exceptions import ClientError

from jobs.errors import InputError

EMR_TAG = {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}
"""AmazonEMRServicePolicy_v2 lets EMR use only a VPC, subnets and security groups with this tag."""
EMR_SERVICE = "emr-service-cell01"
"""The last part of the name of EMR's endpoint service, ``aws.api.<region>.emr-service-cell01``."""
_ACTIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]


def vpc_cidr(vpc_id: str) -> str:
    """Return the address block of a VPC, such as ``10.0.0.0/16``."""
    try:
        [vpc] = boto3.client("ec2").describe_vpcs(VpcIds=[vpc_id])["Vpcs"]
    except ClientError as error:
        raise InputError(f"VpcId={vpc_id}: {error.response['Error']['Message']}") from None
    return str(vpc["CidrBlock"])


def tag_for_emr(subnet_ids: Sequence[str]) -> None:
    """Give subnets and their VPC the tag `EMR_TAG`. EMR's service role may only use resources with this tag."""
    if not subnet_ids:
        return
    client = boto3.client("ec2")
    subnets = client.describe_subnets(SubnetIds=list(subnet_ids))["Subnets"]
    resource_ids = [*sorted({subnet["VpcId"] for subnet in subnets}), *subnet_ids]
    filters = {"key": [EMR_TAG["Key"]], "resource-id": resource_ids}
    tags = client.describe_tags(Filters=[{"Name": name, "Values": values} for name, values in filters.items()])["Tags"]
    tagged = {tag["ResourceId"] for tag in tags if tag["Value"] == EMR_TAG["Value"]}
    if missing := [name for name in resource_ids if name not in tagged]:
        client.create_tags(Resources=missing, Tags=[EMR_TAG])
        sys.stdout.write(f"tagged {', '.join(missing)} with {EMR_TAG['Key']}={EMR_TAG['Value']}\n")


def release_groups(group_ids: Sequence[str]) -> None:
    """Remove the rules and the VPC endpoint that prevent CloudFormation from deleting the stack's security groups.

    EMR adds rules with references from one group to another. EMR may also have created a VPC endpoint that uses one of
    the groups.

    Raises:
        InputError: if a cluster still uses the groups.
    """
    if not group_ids:
        return
    client: Any = boto3.client("ec2")
    if used := sorted(_clusters_in(group_ids)):
        raise InputError(
            f"clusters {', '.join(used)} still use the security groups of this stack: end them first"
            f" (aws emr terminate-clusters --cluster-ids {' '.join(used)})"
        )
    for group in client.describe_security_groups(Filters=[{"Name": "group-id", "Values": list(group_ids)}])[
        "SecurityGroups"
    ]:
        for kind, revoke in (
            ("IpPermissions", client.revoke_security_group_ingress),
            ("IpPermissionsEgress", client.revoke_security_group_egress),
        ):
            if rules := [_referring(rule) for rule in group[kind] if rule.get("UserIdGroupPairs")]:
                revoke(GroupId=group["GroupId"], IpPermissions=rules)
    endpoints = client.describe_vpc_endpoints(Filters=[{"Name": "tag:Name", "Values": ["emr-service-vpce"]}])
    for endpoint in endpoints["VpcEndpoints"]:
        groups = {group["GroupId"] for group in endpoint.get("Groups", [])}
        # An endpoint of the stack is deleted with the stack. An endpoint with other groups serves other clusters, too.
        owner = {tag["Key"] for tag in endpoint.get("Tags", [])}
        if groups and groups <= set(group_ids) and "nightjar:project" not in owner:
            client.delete_vpc_endpoints(VpcEndpointIds=[endpoint["VpcEndpointId"]])
            sys.stdout.write(f"deleted {endpoint['VpcEndpointId']}, the endpoint that EMR had created\n")


def _referring(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a security group's rule that keeps only its references to security groups.

    To revoke these references, EC2 requires such a copy.
    """
    pairs = [{"GroupId": pair["GroupId"]} for pair in rule["UserIdGroupPairs"] if "GroupId" in pair]
    kept = {key: value for key, value in rule.items() if key in ("IpProtocol", "FromPort", "ToPort")}
    return {**kept, "UserIdGroupPairs": pairs}


def _clusters_in(group_ids: Sequence[str]) -> Iterator[str]:
    """Yield the ids of clusters that have not ended and use one of the groups."""
    client = boto3.client("emr")
    for page in client.get_paginator("list_clusters").paginate(ClusterStates=_ACTIVE):  # type: ignore[arg-type]
        for cluster in page["Clusters"]:
            attributes: Any = client.describe_cluster(ClusterId=cluster["Id"])["Cluster"]["Ec2InstanceAttributes"]
            names = ("EmrManagedMasterSecurityGroup", "EmrManagedSlaveSecurityGroup", "ServiceAccessSecurityGroup")
            if {attributes.get(name) for name in names} & set(group_ids):
                yield str(cluster["Id"])
