"""Find out why a cluster ended, and whether a new cluster can continue the run."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from jobs.errors import NightjarError
from jobs.lake.layout import Lake
from jobs.lake.names import below
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar.emr import requests
from nightjar.emr.logs import last_error, read_log
from nightjar.errors import is_refusal, message_of

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

Kind = Literal["capacity", "bootstrap", "lost", "reaper", "hand", "refused"]

_SUMMARY: Mapping[Kind, str] = {
    "capacity": "AWS had no capacity for it",
    "bootstrap": "a bootstrap action failed",
    "lost": "it was lost",
    "reaper": "it was ended by the reaper",
    "hand": "it was ended by hand or by another program",
    "refused": "EMR ended it because of its request",
}
_KIND_OF_CODE: Mapping[str, Kind] = {
    "INSTANCE_FLEET_TIMEOUT": "capacity",
    "BOOTSTRAP_FAILURE": "bootstrap",
    "INSTANCE_FAILURE": "lost",
    "INTERNAL_ERROR": "lost",
    "ALL_STEPS_COMPLETED": "lost",
    "USER_REQUEST": "hand",
    "STEP_FAILURE": "hand",  # a step of another program: a failed step of Nightjar does not end the cluster
}
_CAPACITY = re.compile(r"capacity|insufficient|not enough instances|could not be provisioned", re.IGNORECASE)
_BOOTSTRAP = re.compile(r"bootstrap", re.IGNORECASE)
_IDLE = re.compile(r"auto-?\s?terminat|\bidle\b", re.IGNORECASE)


@dataclass(frozen=True)
class ClusterEnd:
    """Why a cluster ended, or why it is ending now."""

    cluster_id: str
    state: str
    kind: Kind
    words: str
    """EMR's message and code. The limit that the reaper enforced or the error of a bootstrap action may be added."""

    @property
    def is_replaceable(self) -> bool:
        """Whether a new cluster may replace this one: it was lost, got no capacity, or failed to bootstrap."""
        return self.kind in ("capacity", "bootstrap", "lost")

    @property
    def needs_other_instances(self) -> bool:
        """Whether a new cluster should have other instance types."""
        return self.kind in ("capacity", "bootstrap")

    def __str__(self) -> str:
        words = f": {self.words}" if self.words else ""
        return f"cluster {self.cluster_id} is {self.state}; {_SUMMARY[self.kind]}{words}"


def explain_end(client: EMRClient, store: Store, lake: Lake, cluster_id: str) -> ClusterEnd | None:
    """Return why a cluster ended, or None if it can run steps. A cluster that does not exist in EMR counts as lost."""
    try:
        cluster: Any = client.describe_cluster(ClusterId=cluster_id)["Cluster"]
    except ClientError as error:
        if not is_unknown_cluster(error):
            raise
        return ClusterEnd(cluster_id, "gone", "lost", "EMR has no such cluster")
    state = str(cluster["Status"]["State"])
    if state in requests.USABLE_CLUSTER_STATES:
        return None
    reason = cluster["Status"].get("StateChangeReason", {})
    code, message = reason.get("Code", ""), _message(cluster["Status"])
    words = f"{message} ({code})" if code else message
    kind = _kind(code, message)
    if kind == "hand" and (hours := reaped_after(store, lake, cluster_id)):
        kind, words = "reaper", f"after {hours} h, past the limit cluster.time_to_live_hours; {words}"
    elif kind == "hand" and _outlived(cluster):
        words = f"after its time to live, probably by the reaper; {words}"
    elif kind == "bootstrap" and (found := _bootstrap_error(store, lake, cluster_id, message)):
        words = f"{words}; {found}"
    return ClusterEnd(cluster_id, state, kind, words)


def is_unknown_cluster(error: ClientError) -> bool:
    """Return whether EMR has answered that it has no such cluster."""
    message = error.response.get("Error", {}).get("Message", "")
    return is_refusal(error) and bool(re.search(r"cluster id .*not valid|does not exist", message, re.IGNORECASE))


def note_reaper(store: Store, lake: Lake, cluster: Mapping[str, Any], now: datetime) -> None:
    """Write a note beside a cluster's logs: the reaper ends the cluster. The run's tasks report this as the cause."""
    created = cluster["Status"]["Timeline"]["CreationDateTime"]
    hours = f"{(now - created).total_seconds() / 3600:.1f}"
    store.write_json(_reaper_note(lake, cluster["Id"]), {"hours": hours, "time": now.isoformat(timespec="seconds")})


def reaped_after(store: Store, lake: Lake, cluster_id: str) -> str:
    """Return the age, in hours, at which the reaper ended a cluster. Return "" if the reaper's note cannot be found."""
    try:
        return str(store.read_json(_reaper_note(lake, cluster_id))["hours"])
    except FileNotFoundError:
        return ""
    except (OSError, NightjarError, LookupError, TypeError, ValueError) as error:
        log.warning("Cannot find out whether the reaper ended cluster %s (%s)", cluster_id, error)
        return ""


def _reaper_note(lake: Lake, cluster_id: str) -> str:
    return join(lake.logs, cluster_id, "reaper.json")


def _bootstrap_error(store: Store, lake: Lake, cluster_id: str, message: str) -> str:
    """Return the last error in the log of the bootstrap action that EMR's message names.

    Return the log's URI instead if the log has no error yet, and "" if the message does not name a bootstrap action.
    """
    instance, action = re.search(r"\bi-\w+", message), re.search(r"bootstrap action (\d+)", message)
    if not (instance and action):
        return ""
    uri = below(lake.logs, f"{cluster_id}/node/{instance[0]}/bootstrap-actions/{action[1]}/stderr.gz")
    try:
        return last_error("", read_log(store, uri) or "") or f"EMR writes the action's log to {uri}"
    except (OSError, NightjarError) as error:  # this error must not hide why the cluster ended
        return f"the action's log cannot be read ({message_of(error)})"


def _message(status: Mapping[str, Any]) -> str:
    """Return EMR's message about a cluster's state in one line, followed by the messages of its `ErrorDetails`."""
    messages = [status.get("StateChangeReason", {}).get("Message", "")]
    messages += [detail.get("ErrorMessage", "") for detail in status.get("ErrorDetails", [])]
    return " ".join("; ".join(dict.fromkeys(filter(None, messages))).split())


def _kind(code: str, message: str) -> Kind:
    if _CAPACITY.search(message) and code != "USER_REQUEST":
        return "capacity"
    if _BOOTSTRAP.search(message) and code != "USER_REQUEST":
        return "bootstrap"
    if _IDLE.search(message):
        return "lost"
    return _KIND_OF_CODE.get(code, "refused" if code else "lost")


def _outlived(cluster: Mapping[str, Any]) -> bool:
    try:
        expires = requests.expiry_time(cluster)
    except ValueError:
        return False
    ended = cluster["Status"].get("Timeline", {}).get("EndDateTime") or datetime.now(UTC)
    return expires is not None and ended >= expires
