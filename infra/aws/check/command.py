"""The list of all checks, and the function that runs them on a deployment."""

from __future__ import annotations

from collections.abc import Iterator

from infra.aws.check import availability, network, permissions
from infra.aws.check.findings import Check, Deployment, Finding, run

CHECKS: tuple[Check, ...] = (
    permissions.check_credentials,
    availability.check_placement,
    availability.check_release,
    availability.check_supported_types,
    availability.check_quotas,
    network.check_subnets,
    network.check_ways_out,
    network.check_emr_endpoint,
    network.check_security_groups,
    availability.check_offered_types,
    permissions.check_bucket,
    permissions.check_security_configuration,
    availability.check_wheels,
    permissions.check_service_role,
    permissions.check_node_role,
    permissions.check_airflow_role,
)


def findings(deployment: Deployment) -> Iterator[Finding]:
    """Yield the findings of all checks. Nothing is written, and nothing is started."""
    for check in CHECKS:
        yield from run(check, deployment)
