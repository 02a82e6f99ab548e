"""The progress of a running step: a log line, and one small object in the run's folder."""

from __future__ import annotations

import logging
import time

from jobs.lake import store
from jobs.lake.layout import Run

log = logging.getLogger(__name__)


class Progress:
    """The progress of one step; called with a message, any number of times."""

    def __init__(self, run: Run, step: str, every_seconds: float = 1.0) -> None:
        self._uri = run.progress(step)
        self._step = step
        self._every_seconds = every_seconds
        self._last = float("-inf")

    def __call__(self, message: str) -> None:
        """Log `message`; write it to the run's folder unless the last one is younger than `every_seconds`."""
        log.info("%s: %s", self._step, message)
        now = time.monotonic()
        if now - self._last >= self._every_seconds:
            self._last = now
            store.write_json(self._uri, {"step": self._step, "message": message, "time": time.time()})
