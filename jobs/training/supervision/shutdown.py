"""A notice that the machine is about to be taken, or that the run is to end: SIGTERM.

A worker that hears it finishes its step, and the checkpoint after that step is written. A driver cannot reach the
workers of a cluster by a signal; it puts an object into the run's folder, for which the first worker looks.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import NightjarError
from jobs.lake import store
from jobs.lake.layout import Run

POLL_SECONDS = 2.0

log = logging.getLogger(__name__)


class Notice:
    """Whether this process was told to end. It is a signal handler, which tells the one that it replaced."""

    def __init__(self) -> None:
        self.given = threading.Event()
        self._before: Any = signal.SIG_DFL

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take note."""
        self.given.set()
        if isinstance(self._before, Notice):
            self._before(number, frame)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Handle SIGTERM while inside; another thread than the main one cannot, and hears nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = signal.signal(signal.SIGTERM, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, self._before)


@contextmanager
def passed_on(run: Run) -> Iterator[Notice]:
    """In the driver: pass a SIGTERM on to the run's workers."""
    notice, is_over = Notice(), threading.Event()
    store.delete_file(run.stop)

    def pass_on() -> None:
        while not is_over.wait(0.2):
            if notice.given.is_set():
                log.warning("told to end (SIGTERM): the workers finish their step and write a checkpoint")
                store.write_bytes(run.stop, b"SIGTERM\n")
                return

    try:
        with notice.heeded(), _thread(pass_on, is_over):
            yield notice
    finally:
        if notice.given.is_set():
            store.delete_file(run.stop)


@contextmanager
def noticed(run: Run, is_first: bool) -> Iterator[Notice]:
    """In a worker: hear SIGTERM, and if it is the first worker, also what the driver passes on."""
    notice, is_over = Notice(), threading.Event()

    def look() -> None:
        while not (is_over.wait(POLL_SECONDS) or notice.given.is_set()):
            try:
                if store.exists(run.stop):
                    notice.given.set()
            except (OSError, ClientError, BotoCoreError, NightjarError) as error:
                log.warning("%s: could not look for a notice (%s)", run.stop, error)

    with notice.heeded(), _thread(look, is_over) if is_first else nullcontext():
        yield notice


@contextmanager
def _thread(function: Callable[[], None], is_over: threading.Event) -> Iterator[None]:
    """Run `function` beside what is inside; set `is_over` at the end and wait a little for it."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(POLL_SECONDS)
