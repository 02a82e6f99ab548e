"""Show on stdout, while a run is going on, the state of its cluster and the progress of its steps."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable

from infra.emr.client import connect
from jobs.config import STEPS
from jobs.lake.layout import Run
from jobs.lake.uri import local_path

_POLL_SECONDS = 0.5


class ProgressDisplay:
    """Prints new progress messages in a thread, as long as a `with` block lasts."""

    def __init__(self, run: Run, emr_endpoint: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._emr = connect("emr", emr_endpoint)
        self._clock = clock
        self._repeat_seconds = 5.0 if sys.stdout.isatty() else 15.0
        self._started = clock()
        self._printed: dict[str, tuple[str, float]] = {}
        """The last message of each source, and when it was printed."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def show(self, source: str, message: str) -> None:
        """Print a new message at once. One that differs only in its numbers is printed every few seconds."""
        now, (previous, printed) = self._clock(), self._printed.get(source, ("", 0.0))
        similar = _without_numbers(message) == _without_numbers(previous)
        if message and message != previous and (not similar or now - printed >= self._repeat_seconds):
            self._printed[source] = message, now
            minutes, seconds = divmod(int(now - self._started), 60)
            print(f"[{minutes}:{seconds:02}] {source:<9} {message}", flush=True)

    def _poll(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_POLL_SECONDS)
            clusters = self._emr.list_clusters()["Clusters"]
            self.show("cluster", ", ".join(cluster["Status"]["State"] for cluster in clusters))
            for step in STEPS:
                self.show(step, _progress_message(self._run.progress(step)))


def _progress_message(uri: str) -> str:
    """Return the message that a step reports at `uri`, or an empty string if it has not started."""
    try:
        return str(json.loads(local_path(uri).read_text("utf-8")).get("message", ""))
    except FileNotFoundError:
        return ""


def _without_numbers(message: str) -> str:
    return re.sub(r"[\d.,:]+", "", message)
