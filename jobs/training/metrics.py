"""Metrics: one row for each step, written as small objects while training runs, compacted into one file at its end.

S3 has no append, so a row travels in a part ``part-<attempt>-<writer>-<number>.jsonl``, a few seconds of rows each. A
step that is repeated after a resume counts once: the last attempt's row is taken, and rows of an earlier attempt that
lie behind the step at which a later one began are dropped, also when the later one never came that far.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psutil

from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.uri import base_name, join
from jobs.metrics.training import StepRow, to_jsonl

Row = dict[str, Any]
FLUSH_SECONDS = 5.0


class MetricsWriter:
    """Collects the rows of one attempt and writes a part every few seconds."""

    def __init__(self, run: Run, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._folder = run.metrics_parts
        self._prefix = f"part-{_next_attempt(self._folder):04d}-{uuid.uuid4().hex[:8]}"
        self._flush_seconds = flush_seconds
        self._number = 0
        self._rows: list[Row] = []
        self._flushed = time.monotonic()

    def add(self, row: Row) -> None:
        """Take a row; it is in the lake some seconds later."""
        self._rows.append(row)
        if time.monotonic() - self._flushed >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was collected. To be called before each checkpoint, so that none is ahead of its metrics."""
        if self._rows:
            name = f"{self._prefix}-{self._number:06d}.jsonl"
            store.write_bytes(join(self._folder, name), to_jsonl(self._rows))
            self._number += 1
            self._rows.clear()
        self._flushed = time.monotonic()


class StepMeter:
    """What a step takes: time, the part of it spent in exchange with other workers, memory and cores."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._cpu_started = time.process_time()
        self._sync_seconds = 0.0
        self._sync_bytes = 0

    @contextmanager
    def synchronizing(self, num_bytes: int) -> Iterator[None]:
        """Time what is done inside as synchronization, in which workers send each other `num_bytes` in all."""
        started = time.perf_counter()
        yield
        self._sync_seconds += time.perf_counter() - started
        self._sync_bytes += num_bytes

    def row(self, num_tokens: int) -> Row:
        """The step's figures, now that it is over; `cpu_load` in cores."""
        seconds = time.perf_counter() - self._started
        return {
            "step_milliseconds": 1000 * seconds,
            "sync_milliseconds": 1000 * self._sync_seconds,
            "sync_bytes": self._sync_bytes,
            "tokens_per_second": num_tokens / seconds,
            "resident_bytes": _process(os.getpid()).memory_info().rss,
            "cpu_load": (time.process_time() - self._cpu_started) / seconds,
        }


@cache
def _process(pid: int) -> psutil.Process:
    """Looking a process up takes longer than asking it; a forked worker is another one."""
    return psutil.Process(pid)


def compact(run: Run) -> list[StepRow]:
    """Return all rows by step, one for each, and write them to ``metrics.jsonl``."""
    rows = read_parts(run)
    store.write_bytes(run.metrics, to_jsonl(rows))
    return rows


def read_parts(run: Run) -> list[StepRow]:
    """The rows of all parts by step, one for each step.

    Raises:
        DamagedError: if a part cannot be read.
    """
    rows: list[StepRow] = []
    attempt = ""
    for info in store.list_files(run.metrics_parts):  # sorted by attempt, then by number
        part = _parse(info.uri)
        this_attempt = base_name(info.uri).rpartition("-")[0]
        if part and this_attempt != attempt:
            attempt = this_attempt
            rows = [row for row in rows if row["step"] < part[0]["step"]]
        rows += part
    return rows


def _parse(uri: str) -> list[StepRow]:
    try:
        return [json.loads(line) for line in store.read_bytes(uri).splitlines()]
    except ValueError:
        raise DamagedError(f"{uri}: not lines of JSON; delete it and run again") from None


def _next_attempt(folder: str) -> int:
    attempts = [int(base_name(info.uri).split("-")[1]) for info in store.list_files(folder)]
    return max(attempts, default=-1) + 1
