"""The reaper, which terminates the clusters of a project that have exceeded their time to live."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.errors import NightjarError
from jobs.lake.layout import Lake
from jobs.lake.store import Store
from nightjar.emr import clusters, requests
from nightjar.emr.causes import note_reaper
from nightjar.errors import MayStillRunError

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)


def reap(client: EMRClient, store: Store, lake: Lake, project: str, poll_seconds: float) -> list[str]:
    """Terminate the project's expired clusters, and return their ids.

    Raises:
        MayStillRunError: if a cluster could not be checked or terminated. The message names each such cluster. The
            other expired clusters were terminated.
    """
    now, problems, expired = datetime.now(UTC), list[str](), list[str]()
    active = clusters.list_clusters(client, requests.name_prefix(project))
    for listed in active:
        with clusters.collecting(problems, f"cluster {listed['Id']} cannot be checked"):
            cluster = clusters.describe(client, listed["Id"])
            if _has_expired(cluster, project, now):
                expired.append(str(listed["Id"]))
                _note(store, lake, cluster, now)
    log.info(
        "%d active clusters have a name like those of project %s; %d of the project have expired",
        len(active),
        project,
        len(expired),
    )
    clusters.terminate_clusters(client, expired, poll_seconds, problems)
    if problems:
        raise MayStillRunError(f"{'; '.join(problems)}; look at them in the EMR console")
    return expired


def _has_expired(cluster: Mapping[str, Any], project: str, now: datetime) -> bool:
    """Return whether a cluster belongs to the project and has expired, according to its tags.

    Raise MayStillRunError if the tag for the project or for the expiry time is missing or wrong.
    """
    owner = requests.tags_of(cluster).get("nightjar:project")
    if owner not in (None, project):
        return False
    if owner is None:
        raise MayStillRunError(f"it is named {cluster['Name']}, but has no tag nightjar:project")
    try:
        expires = requests.expiry_time(cluster)
    except ValueError as error:
        raise MayStillRunError(str(error)) from None
    if expires is None:
        raise MayStillRunError("it has no tag nightjar:expires")
    return expires <= now


def _note(store: Store, lake: Lake, cluster: Mapping[str, Any], now: datetime) -> None:
    """Write to the lake that the reaper ends a cluster. An error is only logged: the cluster is ended anyway."""
    try:
        note_reaper(store, lake, cluster, now)
    except (OSError, NightjarError) as error:
        log.warning("Cluster %s is ended without a note in the lake (%s)", cluster["Id"], error)
