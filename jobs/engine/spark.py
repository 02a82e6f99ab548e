"""Work on Spark: tasks for independent items, a barrier stage for a gang.

Spark schedules; the bytes are read and written by the tasks themselves. What a task raises of ours comes back as it
is, without Spark's retries, which could not help; anything else is left to Spark, which tries a task again.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipimport import zipimporter

from py4j.protocol import Py4JError
from pyspark import BarrierTaskContext, SparkContext
from pyspark.sql import SparkSession

from jobs.engine.contract import Item, Result
from jobs.errors import InputError, NightjarError, WorkerLostError
from jobs.gang import Member

if TYPE_CHECKING:
    from jobs.config import SparkConfig

log = logging.getLogger(__name__)

_SETTINGS = {
    "spark.dynamicAllocation.enabled": "false",  # a barrier stage needs all its slots at once
    "spark.speculation": "false",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.ui.showConsoleProgress": "false",
    # For glibc, in Python workers: what a task freed stays for the next. To get it anew takes a tenth of a task's time.
    "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(2**28),
    "spark.executorEnv.MALLOC_MMAP_THRESHOLD_": str(2**25),
    "spark.python.worker.faulthandler.enabled": "true",  # a lost worker's last words reach the driver
}


class SparkEngine:
    """Runs work on the Spark that started this driver, or on a `master` of its own."""

    name = "spark"

    def __init__(self, config: SparkConfig, master: str | None = None) -> None:
        # Workers start in the driver's folder, which need not be the one that holds the package.
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        if master is not None:
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.appName(config.app_name)
        for key, value in _SETTINGS.items():
            builder = builder.config(key, value)
        if master is not None:
            if master.startswith("local"):
                os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            builder = builder.master(master).config("spark.driver.memory", config.driver_memory)
            builder = builder.config("spark.executor.memory", config.executor_memory)
            builder = builder.config("spark.ui.enabled", "false")
        started = time.monotonic()
        self._session = builder.getOrCreate()
        self._context: SparkContext = self._session.sparkContext
        self._context.setLogLevel("WARN")
        log.info("Spark %s on %s in %.1f s", self._context.version, self._context.master, time.monotonic() - started)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item, one task each.

        Raises:
            WorkerLostError: if a task failed as often as Spark tries it.
        """
        if not items:
            return []
        self._context.setJobDescription(description)
        try:
            outcomes = self._context.parallelize(items, len(items)).map(_Guarded(function)).collect()
        except Py4JError as error:
            raise WorkerLostError(_cause(error)) from None
        return [outcome.unwrap() for outcome in outcomes]

    def task_threads(self, num_tasks: int) -> int:
        """The slots that Spark has now, shared out."""
        context = _jvm(self._context)
        slots = context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile())
        return max(1, int(slots) // num_tasks)

    def gang(self, function: Callable[[Member], Result], workers: int, description: str) -> Result:
        """Run `function` in the tasks of one barrier stage.

        Raises:
            InputError: at once, if the cluster cannot have as many slots as there are workers.
            WorkerLostError: if a task died; Spark does not repeat a barrier stage whose results are collected.
        """
        self._wait_for_slots(workers)
        self._context.setJobDescription(description)
        tasks = self._context.parallelize(range(workers), workers).barrier().mapPartitions(_GangTask(function))
        try:
            outcomes = tasks.collect()
        except Py4JError as error:
            raise WorkerLostError(_cause(error)) from None
        for outcome in outcomes:
            outcome.unwrap()
        result: Result = outcomes[0].value
        return result

    def stages(self) -> list[dict[str, Any]]:
        """Figures of every stage so far, from Spark's own status store. Durations in seconds, sizes in bytes."""
        context, gateway = _jvm(self._context), self._context._gateway
        if gateway is None:
            return []
        context.listenerBus().waitUntilEmpty()
        quantiles = gateway.new_array(gateway.jvm.double, 0)
        stages = context.statusStore().stageList(None, False, False, quantiles, None)
        return sorted((_stage(stages.apply(i)) for i in range(stages.size())), key=lambda row: int(row["stage"]))

    def stop(self) -> None:
        """End the Spark application."""
        self._session.stop()

    def _wait_for_slots(self, workers: int, limit_seconds: float = 120.0) -> None:
        """Wait until executors with enough slots have come; a local master has all of its slots from the start."""
        context = _jvm(self._context)
        profile = context.resourceProfileManager().defaultResourceProfile()
        deadline = time.monotonic() + (0 if str(self._context.master).startswith("local[") else limit_seconds)
        while (slots := context.maxNumConcurrentTasks(profile)) < workers:
            if time.monotonic() >= deadline:
                raise InputError(
                    f"train.workers ({workers}) need as many slots at once, Spark on {self._context.master} has"
                    f" {slots}: lower train.workers or raise spark.executors or spark.executor_cores"
                )
            time.sleep(0.5)


class _Outcome(NamedTuple):
    """What a task returned, or the error of ours that it raised."""

    value: Any
    error: NightjarError | None = None

    def unwrap(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class _Guarded:
    """A function whose errors of ours are returned, so that they reach the driver as they are."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, item: Any) -> _Outcome:
        try:
            return _Outcome(self._function(item))
        except WorkerLostError:
            raise
        except NightjarError as error:
            return _Outcome(None, error)
        finally:
            _settle_worker()


class _GangTask:
    """What each task of a barrier stage runs."""

    def __init__(self, function: Callable[[Member], Any]) -> None:
        self._guarded = _Guarded(function)

    def __call__(self, _items: Iterable[int]) -> Iterator[_Outcome]:
        context = BarrierTaskContext.get()
        host = socket.gethostname()
        hosts = context.allGather(host)
        rank = context.partitionId()
        threads = max(1, (os.cpu_count() or 1) // hosts.count(host))
        folder = os.environ.get("PYTHON_FAULTHANDLER_DIR")  # Spark's own place for a worker's last words
        last_words = str(Path(folder) / str(os.getpid())) if folder else None
        outcome = self._guarded(Member(rank, len(hosts), threads, host, context.allGather, last_words))
        yield outcome if rank == 0 or outcome.error else _Outcome(None)


def _settle_worker() -> None:
    """Spare this worker what PySpark does around each task: 0.1 CPU seconds, more than encoding 8 MB of text takes.

    Before a task it calls `importlib.invalidate_caches`, at which every finder of a zip or jar file reads the archive's
    directory again; an import that needs one makes it anew, from what `zipimport` has read. After a task it collects
    garbage, and looks through all that was ever imported unless that is frozen.
    """
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            sys.path_importer_cache.pop(path, None)
    if not gc.get_freeze_count():
        gc.freeze()


def _jvm(context: SparkContext) -> Any:
    """The JVM's own SparkContext."""
    return context._jsc.sc()


def _cause(error: Py4JError) -> str:
    """The line of a Java exception that says what happened in the task: the last that is not "Caused by"."""
    reasons = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception): .+)$", str(error), re.MULTILINE)
    return f"a task failed: {reasons[-1] if reasons else str(error).splitlines()[0]}"


def _stage(data: Any) -> dict[str, Any]:
    submitted, completed = data.submissionTime(), data.completionTime()
    both = submitted.isDefined() and completed.isDefined()
    description = data.description()
    return {
        "stage": data.stageId(),
        "attempt": data.attemptId(),
        "description": description.get() if description.isDefined() else data.name(),
        "status": data.status().toString(),
        "tasks": data.numTasks(),
        "failed_tasks": data.numFailedTasks(),
        "seconds": (completed.get().getTime() - submitted.get().getTime()) / 1e3 if both else 0.0,
        "task_seconds": data.executorRunTime() / 1e3,
        "cpu_seconds": data.executorCpuTime() / 1e9,
        "gc_seconds": data.jvmGcTime() / 1e3,
        "input_bytes": data.inputBytes(),
        "output_bytes": data.outputBytes(),
        "shuffle_read_bytes": data.shuffleReadBytes(),
        "shuffle_write_bytes": data.shuffleWriteBytes(),
        "memory_spilled_bytes": data.memoryBytesSpilled(),
        "disk_spilled_bytes": data.diskBytesSpilled(),
        "result_bytes": data.resultSize(),
    }
