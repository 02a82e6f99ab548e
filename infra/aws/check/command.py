"""Run all checks of a deployment, and print one line for each finding."""

from __future__ import annotations

from collections.abc import Iterator

from infra.aws.check import access, network, offers
from infra.aws.check.findings import Check, Deployment, Finding, run

CHECKS: tuple[Check, ...] = (
    access.check_credentials,
    offers.check_placement,
    offers.check_release,
    offers.check_supported_types,
    offers.check_quotas,
    network.check_subnets,
    network.check_ways_out,
    network.check_emr_endpoint,
    network.check_security_groups,
    offers.check_offered_types,
    access.check_bucket,
    access.check_security_configuration,
    offers.check_wheels,
    access.check_service_role,
    access.check_node_role,
    access.check_airflow_role,
)


def findings(deployment: Deployment) -> Iterator[Finding]:
    """Yield the findings of all checks. Nothing is written, and nothing is started."""
    for check in CHECKS:
        yield from run(check, deployment)
