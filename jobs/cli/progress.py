"""Shows the progress of a step: on a terminal as one line that is redrawn, elsewhere as log lines."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

from rich.console import Console
from rich.status import Status
from rich.text import Text

from jobs.errors import NightjarError
from jobs.lake import store
from jobs.lake.layout import Run

POLL_SECONDS = 1.0
LINE_SECONDS = 10.0

log = logging.getLogger("jobs")


@contextmanager
def show_progress(run: Run, step: str, log_level: str) -> Iterator[None]:
    """Show the latest message of a step while the block runs, and the step's duration at the end.

    The message is shown only on a terminal and with the log level INFO. In all other cases, each message is a log line
    already, and nothing is shown. The step train is an exception: its workers write logs of their own. So its latest
    message is then logged every `LINE_SECONDS` seconds.
    """
    if log_level != "INFO" or not sys.stderr.isatty():
        with _watching(partial(_log_lines, run, step)) if step == "train" else nullcontext():
            yield
        return
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    log.setLevel(logging.WARNING)  # also in worker processes, whose lines would break the redrawn one
    try:
        with console.status(step) as status, _watching(partial(_redraw, run, step, status, started)):
            yield
        console.print(f"done {step:<9} {time.monotonic() - started:.1f} s")
    finally:
        log.setLevel(logging.INFO)


@contextmanager
def _watching(watch: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run the function `watch` in a thread while the block runs.

    The argument of `watch` is an event. When the block ends, set this event, and wait until the thread ends.
    """
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(ended,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _log_lines(run: Run, step: str, ended: threading.Event) -> None:
    """Look every `LINE_SECONDS` seconds for a new message of the step, and log it. Return when `ended` is set."""
    last = _message(run, step)
    while not ended.wait(LINE_SECONDS):
        if (message := _message(run, step)) != last:
            log.info("%s: %s", step, message)
            last = message


def _redraw(run: Run, step: str, status: Status, started: float, ended: threading.Event) -> None:
    """Redraw the line with the step's latest message on the terminal, until `ended` is set."""
    message = ""
    while not ended.wait(POLL_SECONDS):
        message = _message(run, step) or message
        line = Text(f"{step:<9} {time.monotonic() - started:.0f} s  {message}")
        line.truncate(status.console.width - 3, overflow="ellipsis")  # the spinner takes two columns
        status.update(line)


def _message(run: Run, step: str) -> str:
    """Return the latest message of a step. Return "" if there is none yet."""
    with suppress(OSError, NightjarError):
        return str(store.read_json(run.progress(step)).get("message", ""))
    return ""
