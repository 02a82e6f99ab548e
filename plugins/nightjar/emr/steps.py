"""Find, submit and cancel the steps of a run, with any boto3 client of EMR.

A step belongs to a run if its arguments name the run's configuration file. So runs may share a cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.lake.layout import Run
from jobs.prices.metering import StepSpan
from nightjar.emr import requests
from nightjar.emr.causes import is_unknown_cluster

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)


def active_steps(client: EMRClient, cluster_id: str, run: Run, name: str | None = None) -> list[str]:
    """Return the ids of the run's steps on a cluster that are pending or running, oldest first.

    With a `name`, return only steps with this name.
    """
    found = _steps_of(client, cluster_id, run, StepStates=["PENDING", "RUNNING"])
    return [str(step["Id"]) for step in requests.oldest_first(found) if name in (None, step["Name"])]


def attempt_numbers(client: EMRClient, cluster_ids: Iterable[str], run: Run, name: str) -> list[int]:
    """Return the attempt numbers of a run's steps called `name` on some clusters. A step without a number gives 0."""
    return [
        _number_of(step)
        for cluster_id in cluster_ids
        for step in _steps_of(client, cluster_id, run)
        if step["Name"] == name
    ]


def find_attempt(client: EMRClient, cluster_id: str, run: Run, name: str, number: int) -> str | None:
    """Return the id of an attempt at the step called `name`, in any state. Return None if EMR lists no such attempt."""
    for step in requests.oldest_first(_steps_of(client, cluster_id, run)):
        if step["Name"] == name and _number_of(step) == number:
            return str(step["Id"])
    return None


def submit_step(client: EMRClient, request: Mapping[str, Any]) -> str:
    """Submit a step with an AddJobFlowSteps request, and return the step's id."""
    step_id = str(client.add_job_flow_steps(**request)["StepIds"][0])
    log.info("Submitted step %s (%s) to cluster %s", request["Steps"][0]["Name"], step_id, request["JobFlowId"])
    return step_id


def keep_first(client: EMRClient, cluster_id: str, run: Run, name: str, step_id: str) -> str:
    """Cancel all active steps with this name except the oldest one, and return the id of the oldest.

    Return `step_id` if no step is active. Duplicates exist if boto3 repeated a request: AddJobFlowSteps has no client
    token.
    """
    first, *duplicates = active_steps(client, cluster_id, run, name) or [step_id]
    if duplicates:
        log.warning("Keeping step %s; cancelling its duplicates %s", first, ", ".join(duplicates))
        cancel_steps(client, cluster_id, duplicates)
    return first


def describe_step(client: EMRClient, cluster_id: str, step_id: str) -> Any:
    """Return the step in the answer of DescribeStep."""
    return client.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]


def step_spans(client: EMRClient, cluster_id: str, run: Run) -> tuple[StepSpan, ...]:
    """Return when the attempts at the run's steps on a cluster ran, oldest first. The times are EMR's."""
    found = []
    for step in _steps_of(client, cluster_id, run):
        times = step["Status"].get("Timeline", {})
        if started := times.get("StartDateTime"):
            ended = times.get("EndDateTime") or datetime.now(UTC)
            found.append(StepSpan(step["Name"], round(started.timestamp(), 3), round(ended.timestamp(), 3)))
    return tuple(sorted(found, key=lambda span: span.started))


def cancel_steps(client: EMRClient, cluster_id: str, step_ids: Sequence[str]) -> None:
    """Cancel steps. A step that has already ended stays as it is."""
    if step_ids:
        log.info("Cancelling step %s of cluster %s", ", ".join(step_ids), cluster_id)
        answer = client.cancel_steps(**requests.cancel_steps(cluster_id, step_ids))
        for info in answer.get("CancelStepsInfoList", []):
            if info.get("Status") == "FAILED":
                log.warning("Step %s was not cancelled: %s", info.get("StepId"), info.get("Reason"))


def cancel_steps_of_run(client: EMRClient, cluster_id: str, run: Run, name: str | None = None) -> None:
    """Cancel a run's pending and running steps on a cluster. With a `name`, cancel only steps with this name."""
    cancel_steps(client, cluster_id, active_steps(client, cluster_id, run, name))


def _steps_of(client: EMRClient, cluster_id: str, run: Run, **options: Any) -> list[Any]:
    """Return the run's steps on a cluster, as ListSteps returns them. Return [] if EMR has no such cluster."""
    try:
        pages = list(client.get_paginator("list_steps").paginate(ClusterId=cluster_id, **options))
    except ClientError as error:
        if is_unknown_cluster(error):
            return []
        raise
    return [step for page in pages for step in page["Steps"] if run.config in step.get("Config", {}).get("Args", ())]


def _number_of(step: Mapping[str, Any]) -> int:
    """Return the number of the attempt in the arguments of a step, or 0."""
    attempt = requests.attempt_of(step)
    return attempt[1] if attempt else 0
