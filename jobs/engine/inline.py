"""Runs a step's functions on this machine, without a JVM. A worker group is a set of local processes."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.engine.base import Item, Result, WorkerContext, num_cores, run_worker, single_worker
from jobs.errors import NightjarError, WorkerLostError
from jobs.metrics.stats import ExecutorRow, StageRow

log = logging.getLogger(__name__)

_WATCHDOG = "worker "
"""The beginning of the report that the watchdog writes about a worker that hangs."""


class InlineEngine:
    """Runs everything on this machine."""

    name = "inline"

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item, one after another."""
        log.debug("%s: %d tasks", description, len(items))
        return [function(item) for item in items]

    def task_threads(self, num_tasks: int) -> int:
        """Return all cores, since tasks run one after another."""
        return num_cores()

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run `function` in `workers` new processes, or in this process for one worker. Return the result of rank 0."""
        log.debug("%s: a group of %d workers", description, workers)
        threads = max(1, num_cores() // workers)
        if workers == 1:
            return function(single_worker(threads))
        with TemporaryDirectory(prefix="nightjar-workers-") as folder:
            result: Result = _WorkerGroup(function, workers, threads, Path(folder)).result()
        return result

    def stages(self) -> list[StageRow]:
        """Return no rows, since only Spark has stages."""
        return []

    def executors(self) -> list[ExecutorRow]:
        """Return no rows, since only Spark has executors."""
        return []


class _WorkerGroup:
    """The worker processes of a group. Each sends its `all_gather` texts, then its result or error, through a pipe."""

    def __init__(self, function: Callable[[WorkerContext], Any], workers: int, threads: int, folder: Path) -> None:
        context = _process_context()
        self._crash_reports = [folder / str(rank) for rank in range(workers)]
        self._pipes: list[Connection] = []
        self._processes = []
        for rank, crash_report in enumerate(self._crash_reports):
            ours, theirs = context.Pipe()
            arguments = (function, rank, workers, threads, str(crash_report), theirs, dict(os.environ))
            process = context.Process(target=_run_worker, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def result(self) -> Any:
        """Exchange the texts of `all_gather` until all workers have ended. Return the result of rank 0."""
        outcomes: dict[int, Any] = {}
        texts: dict[int, str] = {}
        try:
            while len(outcomes) < len(self._pipes):
                for pipe in wait([pipe for rank, pipe in enumerate(self._pipes) if rank not in outcomes]):
                    rank = self._pipes.index(pipe)  # type: ignore[arg-type]  # wait returns what it was given
                    self._receive(rank, texts, outcomes)
        finally:
            for process in self._processes:
                process.kill()
                process.join()
        return outcomes[0]

    def _receive(self, rank: int, texts: dict[int, str], outcomes: dict[int, Any]) -> None:
        """Receive one message of a worker: a text for `all_gather`, its result or its error.

        Once every worker has sent its text, send all texts to every worker.
        """
        try:
            kind, value = self._pipes[rank].recv()
        except EOFError:
            raise WorkerLostError(self._crash_report(rank)) from None
        if kind == "failed":
            if hung := [report for report in map(_read, self._crash_reports) if report.startswith(_WATCHDOG)]:
                raise WorkerLostError(hung[0])  # this worker only lost its connection to the killed worker
            raise value
        if kind == "done":
            outcomes[rank] = value
            return
        texts[rank] = value
        if len(texts) == len(self._pipes):
            for pipe in self._pipes:
                pipe.send([texts[rank] for rank in range(len(texts))])
            texts.clear()

    def _crash_report(self, rank: int) -> str:
        """Return the crash report of a worker that ended without a result.

        If the watchdog wrote a report, return this report. If not, return a line that names the worker, followed by the
        stacks that faulthandler wrote.
        """
        report = _read(self._crash_reports[rank])
        if report.startswith(_WATCHDOG):
            return report
        return f"worker {rank} exited without an error message (killed or crashed)\n{report}".rstrip()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _process_context() -> ForkServerContext | SpawnContext:
    """Return the `multiprocessing` context that starts workers.

    Workers are forked from a process that has imported the training code, which takes 2 s of CPU time. On macOS each
    worker is spawned and imports the code itself, because Apple's libraries do not work after a fork.
    """
    if sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jobs.training.worker"])
    return context


def _run_worker(
    function: Callable[[WorkerContext], Any],
    rank: int,
    workers: int,
    threads: int,
    crash_report: str,
    pipe: Connection,
    environment: dict[str, str],
) -> None:
    """Run `function` as one worker of a group, in the worker's process. Send its result or error through `pipe`."""
    os.environ.clear()  # the process from which this one was forked has the environment of the first group
    os.environ.update(environment)

    def all_gather(text: str) -> list[str]:
        pipe.send(("text", text))
        texts: list[str] = pipe.recv()
        return texts

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    faulthandler.enable(Path(crash_report).open("w"))  # noqa: SIM115 - open as long as the process lives
    try:
        hosts = [socket.gethostname()] * workers
        result = run_worker(function, WorkerContext(rank, threads, hosts, all_gather, crash_report))
        pipe.send(("done", result if rank == 0 else None))
    except NightjarError as error:
        pipe.send(("failed", error))
    except Exception:  # noqa: BLE001 - the parent must receive any error
        pipe.send(("failed", WorkerLostError(f"worker {rank} failed:\n{traceback.format_exc()}")))


def _exit_with_parent() -> None:
    """Wait for the end of the parent process, then exit."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
