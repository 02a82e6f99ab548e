"""Judge how a step ended: its exit code, and the cause in its logs."""

from __future__ import annotations

import gzip
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar.errors import StepFailedError, UserError

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

    def error(self, step_name: str, step_id: str) -> UserError | StepFailedError:
        """Return the error to raise: a `UserError`, which is not retried, after the exit code of wrong input."""
        if self.exit_code == InputError.exit_code and self.log_tail:
            return UserError(self.log_tail.splitlines()[-1])
        return StepFailedError(f"{step_name} failed (step {step_id}): {self.reason}")


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
