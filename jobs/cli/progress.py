"""The progress of a step on a terminal: one line that is redrawn, instead of log lines."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.status import Status
from rich.text import Text

from jobs.errors import NightjarError
from jobs.lake import store
from jobs.lake.layout import Run

POLL_SECONDS = 1.0

log = logging.getLogger("jobs")


@contextmanager
def show_progress(run: Run, step: str, log_level: str) -> Iterator[None]:
    """Show the latest message of a step while the block runs, and its duration at the end.

    Only on a terminal and with the log level INFO; otherwise the log has a line for each message.
    """
    if log_level != "INFO" or not sys.stderr.isatty():
        yield
        return
    console = Console(stderr=True, highlight=False)
    started, ended = time.monotonic(), threading.Event()
    log.setLevel(logging.WARNING)  # also in worker processes, whose lines would break the redrawn one
    try:
        with console.status(step) as status:
            watcher = threading.Thread(target=_watch, args=(run, step, status, ended, started), daemon=True)
            watcher.start()
            try:
                yield
            finally:
                ended.set()
                watcher.join()
        console.print(f"done {step:<9} {time.monotonic() - started:.1f} s")
    finally:
        log.setLevel(logging.INFO)


def _watch(run: Run, step: str, status: Status, ended: threading.Event, started: float) -> None:
    """Redraw the line until the step has ended."""
    message = ""
    while not ended.wait(POLL_SECONDS):
        with suppress(OSError, NightjarError):  # not written yet
            message = store.read_json(run.progress(step)).get("message", "")
        line = Text(f"{step:<9} {time.monotonic() - started:.0f} s  {message}")
        line.truncate(status.console.width - 3, overflow="ellipsis")  # the spinner takes two columns
        status.update(line)
