"""Find, submit and cancel the steps of a run's cluster, with any boto3 client of EMR."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nightjar.emr import requests

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)


def find_step(client: EMRClient, cluster_id: str, name: str) -> str | None:
    """Return the id of the cluster's oldest step called `name` that is pending, running or complete.

    Failed and cancelled steps are ignored, because a retried task submits a new step.
    """
    pages = client.get_paginator("list_steps").paginate(
        ClusterId=cluster_id, StepStates=["PENDING", "RUNNING", "COMPLETED"]
    )
    steps = [step for page in pages for step in page["Steps"] if step["Name"] == name]
    return str(requests.oldest_first(steps)[0]["Id"]) if steps else None


def next_attempt(client: EMRClient, cluster_ids: Iterable[str], name: str, recorded: Iterable[str]) -> int:
    """Return the number of the next attempt at the step called `name`.

    It is one more than the number of any attempt on the run's clusters, in whatever state, and of any attempt that has
    a folder in the lake (`recorded`). So it depends on nothing that Airflow could forget.
    """
    numbers = [int(folder) for folder in recorded if folder.isascii() and folder.isdigit()]
    submitted = 0
    for cluster_id in cluster_ids:
        pages = client.get_paginator("list_steps").paginate(ClusterId=cluster_id)
        for step in (step for page in pages for step in page["Steps"] if step["Name"] == name):
            submitted += 1
            attempt = requests.attempt_of(step)
            numbers += [attempt[1]] if attempt else []
    return 1 + max(submitted, *numbers, 0)


def submit_step(client: EMRClient, request: Mapping[str, Any]) -> str:
    """Return the id of the step that `request` describes, after submitting it if the cluster does not have it yet."""
    cluster_id, name = request["JobFlowId"], request["Steps"][0]["Name"]
    if found := find_step(client, cluster_id, name):
        log.info("Waiting for the existing step %s (%s)", name, found)
        return found
    step_id = client.add_job_flow_steps(**request)["StepIds"][0]
    log.info("Submitted step %s (%s) to cluster %s", name, step_id, cluster_id)
    first = find_step(client, cluster_id, name)
    if first and first != step_id:  # boto3 repeated a request whose response was lost
        client.cancel_steps(**requests.cancel_step(cluster_id, step_id))
        return first
    return step_id


def describe_step(client: EMRClient, cluster_id: str, step_id: str) -> Any:
    """Return the answer of DescribeStep."""
    return client.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]


def cancel_step(client: EMRClient, cluster_id: str, step_id: str) -> None:
    """Cancel a step, unless it has ended already."""
    if describe_step(client, cluster_id, step_id)["Status"]["State"] in requests.ACTIVE_STEP_STATES:
        log.info("Cancelling step %s", step_id)
        client.cancel_steps(**requests.cancel_step(cluster_id, step_id))
