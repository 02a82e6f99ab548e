"""Find, submit, cancel and diagnose the steps of a run's cluster, with any boto3 client of EMR."""

from __future__ import annotations

import gzip
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.lake.layout import Lake
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar.emr import requests

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

LOG_TAIL_LINES = 40
_LOGS = ("stdout.gz", "stderr.gz", "controller.gz")
_EXIT_CODE = re.compile(r"(?:exit status|exit code|exiting with ret)\W+(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class StepFailure:
    """The cause of a failed step."""

    exit_code: int | None
    """None if the step never started or its log is not available."""
    reason: str
    log_tail: str
    """The last lines of the driver's log."""


def find_step(client: EMRClient, cluster_id: str, name: str) -> str | None:
    """Return the id of the cluster's oldest step called `name` that is pending, running or complete.

    Failed and cancelled steps are ignored, because a retried task submits a new step.
    """
    pages = client.get_paginator("list_steps").paginate(
        ClusterId=cluster_id, StepStates=["PENDING", "RUNNING", "COMPLETED"]
    )
    steps = [step for page in pages for step in page["Steps"] if step["Name"] == name]
    return str(requests.oldest_first(steps)[0]["Id"]) if steps else None


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


def explain_failure(
    client: EMRClient, store: Store, lake: Lake, cluster_id: str, step: Mapping[str, Any], wait_seconds: float
) -> StepFailure:
    """Return why `step` failed, from its EMR status and its logs. Waits up to `wait_seconds` for the logs."""
    status = step["Status"]
    details = status.get("FailureDetails", {})
    reason = details.get("Message") or details.get("Reason") or status.get("StateChangeReason", {}).get("Message")
    if not status.get("Timeline", {}).get("StartDateTime"):
        cluster = client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
        cluster_reason = cluster.get("StateChangeReason", {}).get("Message", "")
        never_started = f"it never started; cluster {cluster_id} is {cluster['State']} {cluster_reason}".strip()
        return StepFailure(None, f"{reason}; {never_started}" if reason else never_started, "")
    folder = join(lake.logs, cluster_id, "steps", step["Id"])
    logs = _await_logs(store, folder, wait_seconds)
    exit_code = _exit_code(logs.get("controller.gz", "")) or _exit_code(reason or "")
    # spark-submit redirects the Python driver's stderr to its own stdout; its stderr has the log of the JVM.
    tail = _tail(logs.get("stdout.gz", "")) or _tail(logs.get("stderr.gz", ""))
    return StepFailure(exit_code, reason or f"step is {status['State']}", tail or f"(no log in {folder} yet)")


def _await_logs(store: Store, folder: str, wait_seconds: float) -> dict[str, str]:
    """Return the step's logs by file name, as soon as they are complete or after `wait_seconds`.

    EMR uploads logs every few minutes, also while the step runs. They are complete when the controller's log has the
    exit code.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        logs = {name: text for name in _LOGS if (text := _read_log(store, join(folder, name))) is not None}
        if _exit_code(logs.get("controller.gz", "")) is not None or time.monotonic() >= deadline:
            return logs
        log.info("Waiting for the step's logs in %s", folder)
        time.sleep(max(0.1, min(10.0, wait_seconds / 10)))


def _read_log(store: Store, uri: str) -> str | None:
    try:
        return gzip.decompress(store.read_bytes(uri)).decode("utf-8", errors="replace")
    except (FileNotFoundError, EOFError, gzip.BadGzipFile):
        return None


def _exit_code(text: str) -> int | None:
    code = _EXIT_CODE.search(text)
    return int(code[1]) if code else None


def _tail(text: str) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-LOG_TAIL_LINES:])
