"""Work in this process, with no JVM; a gang of several is a group of processes on this machine."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import socket
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.engine.base import Item, Result, WorkerContext, num_cores, single_worker
from jobs.errors import NightjarError, WorkerLostError

log = logging.getLogger(__name__)


class InlineEngine:
    """Runs everything on this machine."""

    name = "inline"

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item, one after another."""
        log.debug("%s: %d tasks", description, len(items))
        return [function(item) for item in items]

    def task_threads(self, num_tasks: int) -> int:
        """All: tasks run one after another."""
        return num_cores()

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run `function` in this process, or in `workers` processes that are started anew."""
        log.debug("%s: a gang of %d", description, workers)
        threads = max(1, num_cores() // workers)
        if workers == 1:
            return function(single_worker(threads))
        with TemporaryDirectory(prefix="nightjar-gang-") as folder:
            result: Result = _Processes(function, workers, threads, Path(folder)).result()
        return result

    def stages(self) -> list[dict[str, Any]]:
        """Nothing: only Spark has stages."""
        return []

    def executors(self) -> list[dict[str, Any]]:
        """Nothing: only Spark has executors."""
        return []


class _Processes:
    """A gang of processes, each with a pipe to this one: it carries what members tell each other, then the outcome."""

    def __init__(self, function: Callable[[WorkerContext], Any], workers: int, threads: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._last_words = [folder / str(rank) for rank in range(workers)]
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(workers):
            ours, theirs = context.Pipe()
            about = (rank, workers, threads, str(self._last_words[rank]))
            process = context.Process(target=_member, args=(function, about, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def result(self) -> Any:
        """Serve the members until all have ended; return the result of rank 0."""
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
        try:
            kind, value = self._pipes[rank].recv()
        except EOFError:
            raise WorkerLostError(self._obituary(rank)) from None
        if kind == "failed":
            raise value
        if kind == "done":
            outcomes[rank] = value
            return
        texts[rank] = value
        if len(texts) == len(self._pipes):
            for pipe in self._pipes:
                pipe.send([texts[rank] for rank in range(len(texts))])
            texts.clear()

    def _obituary(self, rank: int) -> str:
        try:
            words = self._last_words[rank].read_text()
        except FileNotFoundError:
            words = ""
        if words.startswith("worker "):
            return words
        return f"worker {rank} ended without a word: it was killed or crashed\n{words}".rstrip()


def _member(function: Callable[[WorkerContext], Any], about: tuple[int, int, int, str], pipe: Connection) -> None:
    """What each process of a gang runs."""
    rank, workers, threads, last_words = about

    def all_gather(text: str) -> list[str]:
        pipe.send(("text", text))
        texts: list[str] = pipe.recv()
        return texts

    threading.Thread(target=_end_with_parent, daemon=True).start()
    faulthandler.enable(Path(last_words).open("w"))  # noqa: SIM115 - open as long as the process lives
    try:
        result = function(WorkerContext(rank, threads, [socket.gethostname()] * workers, all_gather, last_words))
        pipe.send(("done", result if rank == 0 else None))
    except NightjarError as error:
        pipe.send(("failed", error))
    except Exception:  # noqa: BLE001 - whatever it was, the parent must hear of it
        pipe.send(("failed", WorkerLostError(f"worker {rank} failed:\n{traceback.format_exc()}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
