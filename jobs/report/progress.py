"""How far a running step is: one small object in the run's folder, and a log line."""

from __future__ import annotations

import logging
import time

from jobs.lake import store
from jobs.lake.layout import Run

log = logging.getLogger(__name__)


class Progress:
    """Tells what a step is doing; call it with a message as often as convenient."""

    def __init__(self, run: Run, step: str, every_seconds: float = 1.0) -> None:
        self._uri = run.progress(step)
        self._step = step
        self._every_seconds = every_seconds
        self._last = float("-inf")

    def __call__(self, message: str) -> None:
        """Log `message` and, at most every `every_seconds`, put it where those who wait for the step look."""
        log.info("%s: %s", self._step, message)
        now = time.monotonic()
        if now - self._last >= self._every_seconds:
            self._last = now
            store.write_json(self._uri, {"step": self._step, "message": message, "time": time.time()})
