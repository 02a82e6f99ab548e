"""Logs of steps and bootstrap actions: write the controller's log, upload logs, and find the cause of a failure."""

from __future__ import annotations

import gzip
import logging
import re
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

from infra.emr.clock import Clock
from jobs.errors import NightjarError
from jobs.lake.store import Store
from jobs.lake.uri import to_uri

log = logging.getLogger(__name__)

NAMES = ("controller", "stdout", "stderr")

_TAIL_BYTES = 65536
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b")
_SPARK_LOG = re.compile(
    r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d [A-Z]+ |^(?:WARNING: |Using Spark's default log4j|Setting default)"
)


def write_controller(folder: Path, text: str) -> None:
    """Append a line to the controller's log."""
    with (folder / "controller").open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} INFO {text}\n")


def step_log_uri(log_uri: str, cluster_id: str, step_id: str) -> str:
    """Return the folder of a step's logs, in EMR's layout."""
    return f"{log_uri.rstrip('/')}/{cluster_id}/steps/{step_id}"


def bootstrap_log_uri(log_uri: str, cluster_id: str, instance_id: str, number: int) -> str:
    """Return the folder of a bootstrap action's logs on a node, in EMR's layout."""
    return f"{log_uri.rstrip('/')}/{cluster_id}/node/{instance_id}/bootstrap-actions/{number}"


class Uploads:
    """Uploads logs, at once or after a delay. EMR itself uploads logs every few minutes."""

    def __init__(self, store: Store, clock: Clock, delay_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._delay_seconds = delay_seconds
        self._changed = threading.Condition()
        self._late: list[tuple[float, Path, str]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="late-logs", daemon=True)

    def add(self, folder: Path, uri: str) -> None:
        """Upload the logs in `folder` to `uri`: now, or in the background after the delay."""
        if not self._delay_seconds:
            upload(folder, uri, self._store)
            return
        with self._changed:
            self._late.append((self._clock.now() + self._delay_seconds, folder, uri))
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Upload the remaining logs without further delay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            upload(*due, self._store)

    def _next(self) -> tuple[Path, str] | None:
        """Wait until logs are due for upload, and return their folder and target.

        Return None if `close` was called and no logs are left.
        """
        with self._changed:
            while True:
                if self._late and (self._closed or self._late[0][0] <= self._clock.now()):
                    return self._late.pop(0)[1:]
                if self._closed:
                    return None
                self._clock.wait(self._changed, self._late[0][0] if self._late else None)


def upload(folder: Path, uri: str, store: Store) -> None:
    """Compress the logs in `folder` and upload them to `uri`. Logs that cannot be uploaded stay in `folder`."""
    try:
        for name in NAMES:
            packed = folder / f"{name}.gz"
            with (folder / name).open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target)
            store.copy(packed.absolute().as_uri(), to_uri(f"{uri}/{name}.gz"))
            packed.unlink()
    except (OSError, NightjarError) as error:
        log.warning("Cannot upload logs; they stay in %s: %s", folder, error)


def cause(folder: Path, status: int) -> str:
    """Return one line that says why a step with this exit status failed. It is taken from the end of the step's logs.

    The line is the last one that starts with the name of an exception. If there is none, it is the last plain line: one
    that is neither indented nor part of Spark's log. For exit status 2 it is always the last plain line: by convention,
    the program has printed one line for the user. PySpark writes the driver's stderr to the step's stdout, and Spark's
    log to the step's stderr. Other programs write errors to stderr.
    """
    stdout, stderr = _tail(folder / "stdout"), _tail(folder / "stderr")
    lines = stderr + stdout if any(_SPARK_LOG.match(line) for line in stderr) else stdout + stderr
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    plain = [line for line in lines if line.strip() and not line[0].isspace() and not _SPARK_LOG.match(line)]
    found = plain if status == 2 else exceptions or plain
    return f"exit status {status}: {found[-1].strip()}" if found else f"exit status {status}"


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
