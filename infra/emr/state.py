"""The state of clusters on disk: `<cluster>/cluster.json` in the server's state folder."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.emr.records import ClusterRecord, from_json, to_json
from jobs.errors import InputError

log = logging.getLogger(__name__)

KEPT_SECONDS = 60 * 24 * 3600.0
"""How long an ended cluster is kept, with its logs. EMR itself describes an ended cluster for two months."""
_NAME = "cluster.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder for this server. Raise an `InputError` if another server uses it or it is not writable."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context((folder / "lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"state folder {folder}: another embedded EMR uses it; choose another folder") from None
        except OSError as error:
            raise InputError(f"state folder {folder}: cannot be written: {error.strerror}") from None
        yield


def save(folder: Path, record: ClusterRecord) -> None:
    """Save the record of a cluster. If the file cannot be written, log an error: the cluster continues."""
    path = folder / record.id / _NAME
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(to_json(record)), "utf-8")
        temporary.replace(path)
    except OSError as error:
        log.error("%s: cannot save its state in %s: %s", record.id, path, error)


def forget(folder: Path, cluster_id: str) -> None:
    """Remove the saved state of a cluster. Its logs stay."""
    (folder / cluster_id / _NAME).unlink(missing_ok=True)


def load(folder: Path, now: float) -> list[ClusterRecord]:
    """Return the saved clusters. Delete those that ended over `KEPT_SECONDS` ago, and left-over working folders."""
    found = []
    for path in sorted(folder.glob(f"j-*/{_NAME}")):
        try:
            record = from_json(json.loads(path.read_text("utf-8")))
            if record.id != path.parent.name:
                raise ValueError(f"the file belongs to {record.id}")
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("%s is not the state of a cluster, and is ignored: %s", path, error)
            continue
        if record.ended is not None and record.ended < now - KEPT_SECONDS:
            shutil.rmtree(path.parent, ignore_errors=True)
            continue
        for work in (*path.parent.glob("steps/*/work"), *path.parent.glob("bootstrap-actions/*/work")):
            shutil.rmtree(work, ignore_errors=True)
        found.append(record)
    return found
