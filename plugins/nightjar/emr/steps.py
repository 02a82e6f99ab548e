"""Find, submit, cancel and explain the steps of a run's cluster, with any boto3 client of EMR."""

from __future__ import annotations

import gzip
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.lake.layout import Lake
from jobs.lake.uri import join
from nightjar.emr import requests
from nightjar.storage import Storage

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

TAIL_LINES = 40
_LOGS = ("stdout.gz", "stderr.gz", "controller.gz")
_EXIT_CODE = re.compile(r"(?:exit status|exit code|exiting with ret)\W+(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """Why a step failed: its exit code where it is known, one line, and what its driver said last."""

    exit_code: int | None
    reason: str
    tail: str


def find_step(client: EMRClient, cluster_id: str, name: str) -> str | None:
    """Id of the cluster's step `name` that is under way or complete, the oldest if there are twins.

    A step that failed or is cancelled is not found: the task that asks is a new try.
    """
    pages = client.get_paginator("list_steps").paginate(
        ClusterId=cluster_id, StepStates=["PENDING", "RUNNING", "COMPLETED"]
    )
    steps = [step for page in pages for step in page["Steps"] if step["Name"] == name]
    return str(requests.oldest_first(steps)[0]["Id"]) if steps else None


def submit_step(client: EMRClient, request: Mapping[str, Any]) -> str:
    """Return the id of the step that `request` describes; it is submitted unless it is there."""
    cluster_id, name = request["JobFlowId"], request["Steps"][0]["Name"]
    if found := find_step(client, cluster_id, name):
        log.info("Step %s (%s) is there already: attached to it", name, found)
        return found
    step_id = client.add_job_flow_steps(**request)["StepIds"][0]
    log.info("Submitted step %s (%s) to cluster %s", name, step_id, cluster_id)
    first = find_step(client, cluster_id, name)
    if first and first != step_id:  # boto3 repeats a request whose answer was lost
        client.cancel_steps(**requests.cancel_step(cluster_id, step_id))
        return first
    return step_id


def describe_step(client: EMRClient, cluster_id: str, step_id: str) -> Any:
    """The step as DescribeStep shows it."""
    return client.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]


def cancel_step(client: EMRClient, cluster_id: str, step_id: str) -> None:
    """Cancel a step that is under way; one that has ended stays as it is."""
    if describe_step(client, cluster_id, step_id)["Status"]["State"] in requests.LIVE_STEP:
        log.info("Cancelling step %s", step_id)
        client.cancel_steps(**requests.cancel_step(cluster_id, step_id))


def explain_failure(
    client: EMRClient, storage: Storage, lake: Lake, cluster_id: str, step: Mapping[str, Any], wait_seconds: float
) -> Failure:
    """Say why `step` failed, from EMR's words and from its logs, which may arrive `wait_seconds` late."""
    status = step["Status"]
    details = status.get("FailureDetails", {})
    reason = details.get("Message") or details.get("Reason") or status.get("StateChangeReason", {}).get("Message")
    if not status.get("Timeline", {}).get("StartDateTime"):
        cluster = client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
        why = cluster.get("StateChangeReason", {}).get("Message", "")
        never = f"it never started; cluster {cluster_id} is {cluster['State']} {why}".strip()
        return Failure(None, f"{reason}; {never}" if reason else never, "")
    folder = join(lake.logs, cluster_id, "steps", step["Id"])
    logs = _await_logs(storage, folder, wait_seconds)
    exit_code = _exit_code(logs.get("controller.gz", "")) or _exit_code(reason or "")
    # spark-submit sends the Python driver's error stream to its standard output; stderr has the log of the JVM.
    tail = _tail(logs.get("stdout.gz", "")) or _tail(logs.get("stderr.gz", ""))
    return Failure(exit_code, reason or f"step is {status['State']}", tail or f"(no log yet in {folder})")


def _await_logs(storage: Storage, folder: str, wait_seconds: float) -> dict[str, str]:
    """Read the step's logs, once the controller's tells how it ended or the wait is over.

    EMR uploads logs every few minutes, also while a step runs: only the exit code says that they are complete.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        logs = {name: text for name in _LOGS if (text := _read_log(storage, join(folder, name))) is not None}
        if _exit_code(logs.get("controller.gz", "")) is not None or time.monotonic() >= deadline:
            return logs
        log.info("Waiting for the step's logs in %s", folder)
        time.sleep(max(0.1, min(10.0, wait_seconds / 10)))


def _read_log(storage: Storage, uri: str) -> str | None:
    try:
        return gzip.decompress(storage.read(uri)).decode("utf-8", errors="replace")
    except (FileNotFoundError, EOFError, gzip.BadGzipFile):
        return None


def _exit_code(text: str) -> int | None:
    code = _EXIT_CODE.search(text)
    return int(code[1]) if code else None


def _tail(text: str) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-TAIL_LINES:])
