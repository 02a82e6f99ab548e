"""Find out how a step ended: from the outcome that its driver wrote to the lake, or else from EMR's logs.

The outcome is preferred. EMR uploads logs only minutes after a step has ended, and a new EMR release may word the exit
code in the log differently. The exit code decides whether a failed step is retried (`StepFailure.error`).
"""

from __future__ import annotations

import logging
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.errors import InputError, NightjarError, StoppedError, shorten
from jobs.lake.layout import Lake
from jobs.lake.names import below
from jobs.lake.outcome import Outcome, parse_outcome
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar.aws import is_on_aws
from nightjar.emr import requests
from nightjar.emr.logs import last_error, read_log
from nightjar.errors import StepFailedError, UserError

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

LOG_TAIL_LINES = 40
UPLOAD_SECONDS = 390.0
"""Time limit for logs on AWS. EMR uploads the logs of a running cluster every five minutes, and the upload takes time.
"""
WAIT_POLLS = 12
"""Time limit for the logs of the embedded EMR, as a number of poll intervals."""
_LOGS = ("stdout.gz", "stderr.gz", "controller.gz")
_EXIT_CODE = re.compile(r"(?:exit status|exit code|exiting with ret)\W+(\d+)", re.IGNORECASE)
_SIGNAL_BASE = 128
"""If a signal ended a process, a shell reports this number plus the signal's number as the exit code."""
_UNKNOWN_ERROR = re.compile(r"unknown error\.?", re.IGNORECASE)
"""Matches the reason that EMR gives if it found no error in a step's log."""
_KILLED = (
    "the driver was killed (SIGKILL), probably because the primary node ran out of memory; raise spark.driver_memory,"
    " or choose larger cluster.primary_instance_types"
)


@dataclass(frozen=True)
class StepFailure:
    """The cause of a failed step."""

    exit_code: int | None
    """The driver's exit code. None if the step never started, or left neither an outcome nor a log."""
    reason: str
    log_tail: str
    """The last lines of the driver's log."""
    message: str = ""
    """The driver's error message, from its outcome or else from the last line of its log."""

    def error(self, step_name: str, step_id: str) -> UserError | StepFailedError:
        """Return the error to raise. If the exit code means wrong input, it is a `UserError`, which is not retried."""
        if self.exit_code == InputError.exit_code and self.message:
            return UserError(self.message)
        return StepFailedError(f"{step_name} failed (step {step_id}): {self.reason}")


def log_wait_seconds(endpoint_url: str, poll_seconds: float) -> float:
    """Return the time limit for the logs of a failed step. On AWS it does not depend on `poll_seconds`."""
    return UPLOAD_SECONDS if is_on_aws(endpoint_url) else poll_seconds * WAIT_POLLS


def explain_failure(
    client: EMRClient, store: Store, lake: Lake, cluster_id: str, step: Mapping[str, Any], wait_seconds: float
) -> StepFailure:
    """Return why `step`, as returned by DescribeStep, failed. Read the driver's outcome, or else EMR's status and logs.

    Wait up to `wait_seconds` for the logs only if the driver left no outcome.
    """
    status = step["Status"]
    details = status.get("FailureDetails", {})
    reason = details.get("Message") or details.get("Reason") or status.get("StateChangeReason", {}).get("Message")
    if not status.get("Timeline", {}).get("StartDateTime"):
        cluster = client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
        cluster_reason = cluster.get("StateChangeReason", {}).get("Message", "")
        never_started = f"it never started; cluster {cluster_id} is {cluster['State']} {cluster_reason}".strip()
        return StepFailure(None, f"{reason}; {never_started}" if reason else never_started, "")
    folder = below(lake.logs, f"{cluster_id}/steps/{step['Id']}")
    outcome = read_outcome(store, step)
    left = outcome if outcome and outcome.exit_code else None  # a driver that ended with 0 is not the cause
    logs, problem = _await_logs(store, folder, 0.0 if left else wait_seconds)
    # spark-submit redirects the Python driver's stderr to its own stdout; its stderr has the log of the JVM.
    tail = _tail(logs.get("stdout.gz", "")) or _tail(logs.get("stderr.gz", ""))
    shown = tail or _no_log(folder, logs, problem)
    if left:
        return StepFailure(left.exit_code, shorten(left.cause, 1000), shown, shorten(left.message or left.cause, 1000))
    exit_code = _exit_code(logs.get("controller.gz", "")) or _exit_code(reason or "")
    words = [*_reasons(reason, exit_code, logs), *([f"its logs cannot be read ({problem})"] if problem else [])]
    return StepFailure(exit_code, "; ".join(words) or reason or f"step is {status['State']}", shown, _last_line(tail))


def read_outcome(store: Store, step: Mapping[str, Any]) -> Outcome | None:
    """Return the outcome that the driver of a step wrote to the lake. Return None if there is none or it is unreadable.

    The step's arguments name the run and the attempt, so no state of this Airflow is needed.
    """
    attempt = requests.attempt_of(step)
    if attempt is None:
        return None
    run, number = attempt
    uri = run.outcome(str(step["Name"]), number)
    try:
        return parse_outcome(store.read_bytes(uri), uri)
    except FileNotFoundError:
        return None
    except (OSError, NightjarError) as error:
        log.warning("The outcome of the step cannot be read: %s", error)
        return None


def ended_with_cluster(store: Store, step: Mapping[str, Any]) -> bool:
    """Return whether a step that did not complete was ended from outside, and did not fail by itself."""
    status = step["Status"]
    if status["State"] != "FAILED" or not status.get("Timeline", {}).get("StartDateTime"):
        return True
    left = read_outcome(store, step)
    return left is not None and left.exception == StoppedError.__name__


def _reasons(reason: str | None, exit_code: int | None, logs: Mapping[str, str]) -> list[str]:
    """Return why a step without an outcome failed: EMR's reason, its exit code, and the last error in its log."""
    words = [reason] if reason and not _UNKNOWN_ERROR.fullmatch(reason) else []
    number = (exit_code or 0) - _SIGNAL_BASE
    if number in set(signal.Signals):  # an error before the signal is not the cause
        return [*words, _KILLED if number == signal.SIGKILL else f"the driver ended by {signal.Signals(number).name}"]
    found = last_error(logs.get("stdout.gz", ""), logs.get("stderr.gz", ""), or_last_line=not words)
    return [*words, found] if found and found not in (reason or "") else words


def _await_logs(store: Store, folder: str, wait_seconds: float) -> tuple[dict[str, str], str]:
    """Wait until a step's logs are complete, at most `wait_seconds`. End the wait at once if access is denied.

    EMR uploads logs every few minutes, also while the step runs. They are complete when the controller's log has the
    exit code.

    Returns:
        A dict from file name to text, and the reason why a log cannot be read, or "" if there was no such problem.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        logs, problem = dict[str, str](), ""
        for name in _LOGS:
            try:
                text = read_log(store, join(folder, name))
            except (OSError, NightjarError) as error:  # this error must not hide why the step failed
                problem = shorten((str(error).splitlines() or [type(error).__name__])[0])
                log.warning("%s: the log cannot be read (%s)", join(folder, name), problem)
                deadline = min(deadline, time.monotonic()) if isinstance(error, PermissionError) else deadline
            else:
                logs |= {name: text} if text is not None else {}
        if _exit_code(logs.get("controller.gz", "")) is not None or time.monotonic() >= deadline:
            return logs, problem
        log.info("Waiting for the step's logs in %s", folder)
        time.sleep(max(0.1, min(10.0, wait_seconds / 10)))


def _no_log(folder: str, logs: Mapping[str, str], problem: str) -> str:
    """Return the text to show if the driver has no log."""
    if problem:
        return f"(its logs cannot be read: {problem})"
    return "(the driver wrote no log)" if "controller.gz" in logs else f"(no log in {folder} yet)"


def _exit_code(text: str) -> int | None:
    code = _EXIT_CODE.search(text)
    return int(code[1]) if code else None


def _last_line(text: str) -> str:
    return (text.splitlines() or [""])[-1]


def _tail(text: str) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-LOG_TAIL_LINES:])
