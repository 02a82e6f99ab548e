"""Finds why a Spark job failed: because it lost executors (with YARN's reasons), or because of an exception."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from py4j.protocol import Py4JError
from pyspark import SparkContext

from jobs.engine import spark_status
from jobs.engine.failures import MEMORY, innermost, lost_error, with_advice
from jobs.errors import WorkerLostError

log = logging.getLogger(__name__)

_CRASH = re.compile(r"Python worker exited unexpectedly \(crashed\): (.*?)(?=\n\tat |\Z)", re.DOTALL)
_LOST = re.compile(r"ExecutorLostFailure \((executor \S+)[^)]*\) Reason: ([^\n]+)")
_SYMPTOM = re.compile(r"EOFException|Connection (closed|reset|refused)|Broken pipe|gloo")
"""Errors that the remaining workers of a group raise after an executor was lost. They are not the cause."""
_POLL_SECONDS = 2.0
_REASON_SECONDS = 15.0
"""Maximum seconds to wait for YARN's reason for a loss. The application master requests it every few seconds."""


@dataclass(frozen=True)
class Loss:
    """An executor that the application had and lost."""

    executor: str
    address: str
    reason: str

    @property
    def is_memory(self) -> bool:
        """Whether the executor was lost because it used too much memory."""
        return MEMORY.search(self.reason) is not None

    def __str__(self) -> str:
        return f"executor {self.executor} on {self.address} was lost: {self.reason}"


class LossWatch:
    """Logs the executors that are lost while a job runs, and ends a job whose containers are too small.

    Spark replaces each killed container by one of the same size, and tries each task four times. If more containers
    were killed for their memory than the application has executors, further replacements would not help.
    """

    def __init__(self, context: SparkContext, executors: int) -> None:
        self._context = context
        self._executors = executors
        self._seen: dict[str, Loss] = {}
        self._before: frozenset[str] = frozenset()
        """The ids of the executors that were lost before the current job."""
        self._lock = threading.Lock()
        conf = context.getConf()
        overhead = str(conf.get("spark.executor.memoryOverhead") or "Spark's default")
        self.sizes = {
            "memory": str(conf.get("spark.executor.memory") or "1g"),
            "overhead": f"{overhead} MB" if overhead.isdecimal() else overhead,
        }
        """The memory sizes of an executor, as texts for the messages of `failures.with_advice`."""
        self._reason_seconds = _REASON_SECONDS if str(context.master) == "yarn" else 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for lost executors while the `with` block runs a job."""
        done = threading.Event()
        self.poll()
        self._before = frozenset(self._seen)
        thread = threading.Thread(target=self._watch, args=(done,), name="losses", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def of_job(self, *, wait: bool) -> list[Loss]:
        """Return the executors lost since the last job began.

        If `wait` is True and no loss is known yet, wait for the first one, as long as YARN may take to report it.
        """
        deadline = time.monotonic() + (self._reason_seconds if wait else 0.0)
        while True:
            self.poll()
            found = [loss for loss in self._seen.values() if loss.executor not in self._before]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.5)

    def last(self) -> str:
        """Return a text about the last executor that the application lost, with the settings to change.

        Return an empty text if the application lost none.
        """
        loss = next(reversed(self._seen.values()), None)
        return with_advice(str(loss), self.sizes) if loss else ""

    def poll(self) -> None:
        """Look for executors that were lost since the last call, and log them."""
        with self._lock, suppress(Py4JError, OSError):  # the JVM may be gone
            for each in spark_status.lost_executors(self._context):
                loss = Loss(**each)
                if self._seen.setdefault(loss.executor, loss) is loss:
                    log.warning("%s", with_advice(str(loss), self.sizes))

    def _watch(self, done: threading.Event) -> None:
        ended = False
        while not done.wait(_POLL_SECONDS):
            self.poll()
            killed = [loss for loss in self._seen.values() if loss.is_memory and loss.executor not in self._before]
            if len(killed) > self._executors and not ended:
                ended = True
                log.error(
                    "%d containers were killed because they used too much memory, more than the %d executors of the"
                    " application; new containers have the same size, so the job is cancelled",
                    len(killed),
                    self._executors,
                )
                with suppress(Py4JError, OSError):
                    self._context.cancelAllJobs()


def job_error(error: Py4JError, losses: LossWatch | None) -> WorkerLostError:
    """Return the error to raise for the failed Spark job whose exception is `error`.

    `losses` is None on a local master, whose only executor is the driver.
    """
    text = str(error)
    crash, lost = _CRASH.search(text), _LOST.search(text)
    sizes = losses.sizes if losses is not None else None
    if losses is not None:
        # YARN's reason arrives later than the failure of the lost executor's task.
        is_symptom = bool(crash or lost or _SYMPTOM.search(text))
        found = losses.of_job(wait=is_symptom)
        last = found[-1] if found and is_symptom and not lost else None
        told = next((loss for loss in found if loss.is_memory), last)
        if told is not None:
            return lost_error(str(told), sizes)
    if lost:
        return lost_error(f"{lost[1]} was lost: {lost[2]}", sizes)
    if crash:
        return WorkerLostError(f"a task crashed: {crash[1].strip() or 'killed'}")
    return WorkerLostError(f"a task failed: {with_advice(innermost(error), sizes)}")
