"""Checks of the VPC: subnets and their routes, the VPC endpoint for EMR's service, and the security groups."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from infra.aws.check.findings import Deployment, Finding, ok, problem
from infra.aws.network import EMR_SERVICE, EMR_TAG

RESERVED = 2
"""The number of addresses in each subnet that VPC endpoints need, in addition to those of the cluster's nodes."""


def check_subnets(deployment: Deployment) -> Iterator[Finding]:
    """Check that the subnets exist in one VPC, have room for the cluster, and have the tag that EMR's role needs."""
    cluster = deployment.config.cluster
    if not cluster.subnet_ids:
        yield problem(
            "subnets",
            "cluster.subnet_ids is empty, so EMR takes a public default subnet",
            "Set the variables that aws-deploy printed",
        )
        return
    found = subnets(deployment)
    if len({subnet["VpcId"] for subnet in found}) > 1:
        yield problem("subnets", "the subnets are in several VPCs", "Choose subnets of one VPC")
    needed = 1 + cluster.core_instances + cluster.task_instances + RESERVED
    for subnet in found:
        name, zone, free = subnet["SubnetId"], subnet["AvailabilityZone"], subnet["AvailableIpAddressCount"]
        if free < needed:
            yield problem(
                "subnets", f"{name} has {free} free addresses, but a cluster needs {needed}", "Use a larger subnet"
            )
        else:
            yield ok("subnets", f"{name} in {zone}, {free} free addresses")
    untagged = [subnet["SubnetId"] for subnet in found if EMR_TAG not in subnet.get("Tags", [])]
    [vpc] = deployment.client("ec2").describe_vpcs(VpcIds=[found[0]["VpcId"]])["Vpcs"]
    untagged += [vpc["VpcId"]] if EMR_TAG not in vpc.get("Tags", []) else []
    if untagged:
        yield problem(
            "subnets",
            f"{', '.join(untagged)} lack the tag that EMR's service role needs to use them",
            f"Run make aws-deploy again, or aws ec2 create-tags --resources {' '.join(untagged)}"
            f" --tags Key={EMR_TAG['Key']},Value={EMR_TAG['Value']}",
        )


def check_ways_out(deployment: Deployment) -> Iterator[Finding]:
    """Check that nodes in each subnet reach S3, KMS and a package index."""
    if not deployment.config.cluster.subnet_ids:
        return
    made = _endpoints(deployment)
    interface = {each["ServiceName"].rpartition(".")[2] for each in made if each.get("PrivateDnsEnabled")}
    for subnet in subnets(deployment):
        name, table = subnet["SubnetId"], _route_table(deployment, subnet)
        routes = [route for route in table["Routes"] if route.get("State") != "blackhole"]
        out = next((route for route in routes if route.get("DestinationCidrBlock") == "0.0.0.0/0"), None)
        if out and str(out.get("GatewayId", "")).startswith("igw-") and not subnet.get("MapPublicIpOnLaunch"):
            yield problem(
                "routes",
                f"{name} leads to an internet gateway, but its instances get no public address",
                "Choose a private subnet behind a NAT gateway",
            )
        elif out:
            yield ok("routes", f"{name} has a way out to the internet")
        else:
            yield from _without_internet(deployment, name, table["RouteTableId"], made, interface)


def check_emr_endpoint(deployment: Deployment) -> Iterator[Finding]:
    """Check the VPC endpoint for EMR's service, without which a cluster in a private subnet does not start."""
    if not deployment.config.cluster.subnet_ids:
        return
    client, vpc_id = deployment.client("ec2"), subnets(deployment)[0]["VpcId"]
    service = f"aws.api.{deployment.region}.{EMR_SERVICE}"
    found = [each for each in _endpoints(deployment) if each["ServiceName"] == service]
    if not found:
        yield problem(
            "EMR endpoint",
            f"{vpc_id} has no endpoint of {service}",
            "Deploy with EmrEndpoint=stack; with EmrEndpoint=emr, EMR creates the endpoint with the first cluster",
        )
        return
    [endpoint] = found[:1]
    if not endpoint.get("PrivateDnsEnabled"):
        yield problem("EMR endpoint", f"{endpoint['VpcEndpointId']} has no private DNS name", "Enable its private DNS")
    [vpc] = client.describe_vpcs(VpcIds=[vpc_id])["Vpcs"]
    ids = [group["GroupId"] for group in endpoint.get("Groups", [])]
    groups = client.describe_security_groups(GroupIds=ids)["SecurityGroups"] if ids else []
    if not any(_admits(rule, vpc["CidrBlock"]) for group in groups for rule in group["IpPermissions"]):
        yield problem(
            "EMR endpoint",
            f"no security group of {endpoint['VpcEndpointId']} admits {vpc['CidrBlock']} at port 443",
            f"Add such a rule to {' or '.join(ids) or 'a group of the endpoint'}",
        )
    else:
        yield ok("EMR endpoint", f"{endpoint['VpcEndpointId']}, open to {vpc['CidrBlock']}")
    for name in ("enableDnsSupport", "enableDnsHostnames"):
        answer = client.describe_vpc_attribute(VpcId=vpc_id, Attribute=name)
        if not answer[name[0].upper() + name[1:]]["Value"]:
            yield problem(
                "EMR endpoint", f"{name} is off in {vpc_id}, so endpoints have no DNS names", f"Switch {name} on"
            )


def check_security_groups(deployment: Deployment) -> Iterator[Finding]:
    """Check that the cluster's security groups exist, have `EMR_TAG`, and let the primary node connect to port 443."""
    cluster = deployment.config.cluster
    ids = [cluster.primary_security_group, cluster.core_security_group, cluster.service_security_group]
    if None in ids:
        yield problem("groups", "not all three security groups are set", "Set the variables that aws-deploy printed")
        return
    for group in deployment.client("ec2").describe_security_groups(GroupIds=ids)["SecurityGroups"]:
        name, egress = group["GroupId"], group["IpPermissionsEgress"]
        if EMR_TAG not in group.get("Tags", []):
            yield problem("groups", f"{name} lacks the tag {EMR_TAG['Key']}", "Run make aws-deploy again")
        elif name == cluster.primary_security_group and not any(_covers(rule, 443) for rule in egress):
            yield problem("groups", f"{name} lets nothing out at port 443", "Run make aws-deploy again")
        else:
            yield ok("groups", name)


def subnets(deployment: Deployment) -> list[Any]:
    """Return the cluster's subnets, as EC2 describes them."""
    ids = list(deployment.config.cluster.subnet_ids)
    found: list[Any] = deployment.client("ec2").describe_subnets(SubnetIds=ids)["Subnets"]
    return found


def _without_internet(
    deployment: Deployment, subnet: str, table: str, made: list[Any], interface: set[str]
) -> Iterator[Finding]:
    """Check that a subnet without a route to the internet reaches S3 and KMS by endpoints, and has a wheelhouse.

    Args:
        deployment: The deployment.
        subnet: Id of the subnet.
        table: Id of the subnet's route table.
        made: The endpoints of the VPC, as EC2 describes them.
        interface: The services with an interface endpoint that has a private DNS name, such as ``kms``.
    """
    gateways = [each for each in made if each["ServiceName"].endswith(".s3") and table in each.get("RouteTableIds", [])]
    if not gateways and "s3" not in interface:
        yield problem(
            "routes",
            f"{subnet} reaches neither the internet nor S3",
            f"Deploy with CreateEndpoints=true RouteTableIds={table}",
        )
    if "kms" not in interface:
        yield problem("routes", f"{subnet} does not reach KMS", "Deploy with CreateEndpoints=true")
    if deployment.config.cluster.wheelhouse is None:
        yield problem(
            "routes",
            f"{subnet} does not reach PyPI",
            "Make a wheelhouse (make package-wheelhouse LAKE=...) and set cluster.wheelhouse, or add a NAT gateway",
        )
    else:
        yield ok(
            "routes", f"{subnet} has no way to the internet; nodes install from {deployment.config.cluster.wheelhouse}"
        )


def _route_table(deployment: Deployment, subnet: Any) -> Any:
    """Return the route table of a subnet: its own, or else the VPC's main table."""
    client = deployment.client("ec2")
    own = [{"Name": "association.subnet-id", "Values": [subnet["SubnetId"]]}]
    main = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}, {"Name": "association.main", "Values": ["true"]}]
    tables = client.describe_route_tables(Filters=own)["RouteTables"]
    return (tables or client.describe_route_tables(Filters=main)["RouteTables"])[0]


def _endpoints(deployment: Deployment) -> list[Any]:
    vpc = [{"Name": "vpc-id", "Values": [subnets(deployment)[0]["VpcId"]]}]
    found: list[Any] = deployment.client("ec2").describe_vpc_endpoints(Filters=vpc)["VpcEndpoints"]
    return [each for each in found if each.get("State", "available").lower() in ("available", "pending")]


def _admits(rule: Any, cidr: str) -> bool:
    """Return whether a rule lets all addresses of `cidr` in at port 443."""
    wanted = ipaddress.ip_network(cidr)
    blocks = [ipaddress.ip_network(each["CidrIp"]) for each in rule.get("IpRanges", [])]
    return _covers(rule, 443) and any(wanted.subnet_of(block) for block in blocks)  # type: ignore[arg-type]  # IPv4 both


def _covers(rule: Any, port: int) -> bool:
    """Return whether a rule applies to a TCP port."""
    if rule["IpProtocol"] == "-1":
        return True
    return bool(rule["IpProtocol"] == "tcp" and rule.get("FromPort", 0) <= port <= rule.get("ToPort", 65535))
