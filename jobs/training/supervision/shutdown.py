"""The shutdown signal of training: SIGTERM, sent before a machine is taken away or when a run is cancelled.

A worker that receives SIGTERM finishes its step and the checkpoint after it. The driver cannot send a signal to the
workers on a cluster, so it writes an object into the run's folder, and rank 0 looks for that object.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

from jobs.errors import NightjarError
from jobs.lake import store
from jobs.lake.layout import Run

POLL_SECONDS = 2.0
FORWARD_SECONDS = 0.2

log = logging.getLogger(__name__)


class ShutdownSignal:
    """A handler of SIGTERM that records the signal. If it replaced another `ShutdownSignal`, it also calls that one."""

    def __init__(self) -> None:
        self._received = threading.Event()
        self._replaced: Any = signal.SIG_DFL

    @property
    def is_received(self) -> bool:
        """True once a shutdown has been requested."""
        return self._received.is_set()

    def set(self) -> None:
        """Record that a shutdown has been requested."""
        self._received.set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self.set()
        if isinstance(self._replaced, ShutdownSignal):
            self._replaced(number, frame)

    @contextmanager
    def handle(self) -> Iterator[None]:
        """Handle SIGTERM inside the context. Do nothing outside the main thread: Python allows handlers only there."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._replaced = signal.signal(signal.SIGTERM, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, self._replaced)


@contextmanager
def forward(run: Run) -> Iterator[ShutdownSignal]:
    """Handle SIGTERM in the driver, and forward it to the workers of the run."""
    shutdown, is_over = ShutdownSignal(), threading.Event()
    store.delete_file(run.stop)

    def write_when_received() -> None:
        while not is_over.wait(FORWARD_SECONDS):
            if shutdown.is_received:
                log.warning("received SIGTERM: the workers finish their step and write a checkpoint")
                store.write_bytes(run.stop, b"SIGTERM\n")
                return

    try:
        with shutdown.handle(), _thread(write_when_received, is_over):
            yield shutdown
    finally:
        if shutdown.is_received:
            store.delete_file(run.stop)


@contextmanager
def receive(run: Run, *, is_first: bool) -> Iterator[ShutdownSignal]:
    """Handle SIGTERM in a worker. Rank 0 (`is_first`) also looks for the signal that the driver forwards."""
    shutdown, is_over = ShutdownSignal(), threading.Event()

    def poll() -> None:
        while not (is_over.wait(POLL_SECONDS) or shutdown.is_received):
            try:
                if store.exists(run.stop):
                    shutdown.set()
            except (OSError, NightjarError) as error:
                log.warning("%s: could not look for a shutdown signal (%s)", run.stop, error)

    with shutdown.handle(), _thread(poll, is_over) if is_first else nullcontext():
        yield shutdown


@contextmanager
def _thread(function: Callable[[], None], is_over: threading.Event) -> Iterator[None]:
    """Run `function` in a thread inside the context. Then set `is_over`, and wait `POLL_SECONDS` for the thread."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(POLL_SECONDS)
