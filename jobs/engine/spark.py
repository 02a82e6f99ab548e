"""Run a step's functions on Spark: independent tasks in an ordinary stage, a worker group in a barrier stage.

Spark only schedules the tasks, which read and write the lake themselves. A `NightjarError` of a task reaches the driver
unchanged, and Spark does not retry the task, since it would fail again. After any other error Spark retries the task.
In a worker group any error ends the stage at once, since the other workers would wait for the failed worker.
"""

from __future__ import annotations

import base64
import gc
import logging
import os
import pickle
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipimport import zipimporter

from py4j.protocol import Py4JError
from pyspark import BarrierTaskContext, SparkConf, SparkContext
from pyspark.sql import SparkSession

from jobs.engine import failures, history, slots, spark_status
from jobs.engine.base import Item, Result, WorkerContext, crash_report_file, num_cores, run_worker
from jobs.engine.lost_executors import LossWatch, job_error
from jobs.engine.parent_watch import exit_with_parent
from jobs.errors import NightjarError, WorkerLostError
from jobs.lake.region import VARIABLES, find_region
from jobs.metrics.stats import ExecutorRow, StageRow

if TYPE_CHECKING:
    from jobs.config import SparkConfig

log = logging.getLogger(__name__)

SETTINGS = {
    "spark.dynamicAllocation.enabled": "false",  # a barrier stage needs all its slots at once
    # EMR enables this service, but authenticates in another version than this application: no executor could register.
    "spark.shuffle.service.enabled": "false",
    "spark.speculation": "false",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.ui.showConsoleProgress": "false",
    # With these, glibc in a Python worker keeps freed memory for the next task. Returning the memory to the system and
    # requesting it again took a tenth of a task's time.
    "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(2**28),
    "spark.executorEnv.MALLOC_MMAP_THRESHOLD_": str(2**25),
    "spark.ui.retainedStages": "100000",  # each round of training is a stage, and ``spark.csv`` lists all stages
    # By default, the status store may lack the last 100 ms of events while an executor still runs a task.
    "spark.ui.liveUpdate.period": "0s",
    "spark.python.worker.faulthandler.enabled": "true",  # sends a lost worker's crash report to the driver
}

TASKS_PER_SLOT = 8
"""Maximum number of tasks per slot. With more items, neighbouring items share a task.

Sharing raised the speed of tokenizing from 50 to 72 MB per CPU second. But if a task is lost, more items are repeated.
"""


OPTIONS = {
    "--master": "spark.master",
    "--name": "spark.app.name",
    "--driver-memory": "spark.driver.memory",
    "--executor-memory": "spark.executor.memory",
    "--executor-cores": "spark.executor.cores",
    "--num-executors": "spark.executor.instances",
    "--total-executor-cores": "spark.cores.max",
}
"""A dict. Its keys are options of spark-submit, and its values are the Spark settings that these options set.

It holds only options whose setting this engine sets as well.
"""
_PROPERTIES_FILE = re.compile(r" --properties-file (.+?)(?= --[a-z]|$)")  # the file's name may have spaces


class SparkEngine:
    """Runs functions in a Spark application.

    The user may give settings to spark-submit: as options, by ``--conf`` or in a ``--properties-file``. They override
    the settings of this engine.

    Args:
        config: The application's name, and the sizes of the driver and the executors.
        master: Spark master at which a new application starts. None: use the application of spark-submit, which
            started this driver.
        event_logs: Folder in the lake that gets Spark's event log when the application ends.
    """

    name = "spark"

    def __init__(self, config: SparkConfig, master: str | None = None, event_logs: str | None = None) -> None:
        self._event_logs = event_logs
        self._log_folder = tempfile.TemporaryDirectory(prefix="nightjar-events-") if event_logs else None
        # Python workers start in the driver's working directory, which may not contain the package.
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        settings: dict[str, Any] = {"spark.app.name": config.app_name, **SETTINGS, **_region_settings()}
        if master is not None:
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            sizes = config.filled()
            executors, cores = sizes.executors or 1, sizes.executor_cores or 1
            settings |= {
                "spark.master": master,
                "spark.driver.memory": config.driver_memory,
                "spark.executor.memory": sizes.executor_memory,
                "spark.ui.enabled": "false",
            }
            if master.startswith("local"):
                os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            else:
                settings |= {
                    "spark.executor.cores": cores,
                    "spark.executor.instances": executors,
                    "spark.cores.max": executors * cores,
                    # Python and torch use memory outside the JVM; Spark's default for it, 384 MB, is too little.
                    "spark.executor.memoryOverhead": sizes.executor_overhead,
                    "spark.yarn.heterogeneousExecutors.enabled": "false",
                }
        if self._log_folder and not _logs_events():
            settings |= history.settings(Path(self._log_folder.name))
        for key in submitted_keys(settings):
            value = settings.pop(key)
            if key != "spark.app.name":
                log.info("spark-submit sets %s; the value of this run (%s) is not used", key, value)
        if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has started this process
            exit_with_parent()
        started = time.monotonic()
        try:
            self._session = SparkSession.builder.config(map=settings).getOrCreate()
        except Py4JError as error:
            raise failures.start_error(error, str(settings.get("spark.master") or "yarn")) from None
        self._context: SparkContext = self._session.sparkContext
        self._context.setLogLevel("WARN")
        log.info(
            "Spark %s started on %s in %.1f s", self._context.version, self._context.master, time.monotonic() - started
        )
        # Read now, because the JVM may be gone when this engine is stopped.
        self._application = str(self._context.applicationId)
        conf = self._context.getConf()
        self._log_dir = conf.get("spark.eventLog.dir") if conf.get("spark.eventLog.enabled") == "true" else None
        self._hadoop_conf = self._context._jsc.hadoopConfiguration()
        self._losses = None
        if not slots.is_local(self._context):
            self._losses = LossWatch(self._context, slots.promised_executors(self._context) or 1)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item in a task of its own. If there are many items, neighbours share a task."""
        if not items:
            return []
        self._context.setJobDescription(description)
        num_tasks = min(len(items), TASKS_PER_SLOT * (slots.promised(self._context) or len(items)))
        slots.wait(self._context, 1, self._losses)
        tasks = self._context.parallelize(items, num_tasks).map(partial(_run_task, function))
        outcomes = self._collect(tasks)
        return [outcome.unwrap() for outcome in outcomes]

    def task_threads(self, num_tasks: int) -> int:
        """Return the slots that Spark has now, divided by the number of tasks."""
        return max(1, slots.now(self._context) // num_tasks)

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run `function` in the tasks of one barrier stage, which Spark does not retry.

        Raises:
            InputError: if the settings promise fewer slots than workers, or enable dynamic allocation.
            CapacityError: if the cluster does not provide the slots in time.
            NightjarError: the error that a worker raised, if it raised a `NightjarError`.
            WorkerLostError: if a worker was killed, crashed, or raised another error.
        """
        slots.check(self._context, workers)
        slots.wait(self._context, workers, self._losses)
        self._context.setJobDescription(description)
        tasks = self._context.parallelize(range(workers), workers).barrier()
        results = self._collect(tasks.mapPartitions(partial(_run_barrier_task, function, self._executor_cores())))
        result: Result = results[0]
        return result

    def stages(self) -> list[StageRow]:
        """Return one row of metrics for each stage so far, from Spark's status store."""
        return spark_status.stages(self._context)

    def executors(self) -> list[ExecutorRow]:
        """Return one row of metrics for each executor, from Spark's status store."""
        return spark_status.executors(self._context)

    def stop(self) -> None:
        """End the Spark application, and copy its event log to the lake."""
        jvm = self._context._jvm
        self._session.stop()
        if self._log_folder is None or self._event_logs is None or self._log_dir is None:
            return
        with self._log_folder as name:
            folder = Path(name)
            try:
                if self._log_dir != folder.as_uri():
                    history.fetch(jvm, self._hadoop_conf, self._log_dir, self._application, folder)
                history.keep(folder, self._event_logs)
            except (OSError, NightjarError, Py4JError) as error:
                log.warning("Spark's event log was not copied: %s", (str(error) or repr(error)).splitlines()[0])

    def _collect(self, tasks: Any) -> list[Any]:
        """Run a Spark job and return the results of its tasks.

        Raises:
            NightjarError: the error that a worker of a worker group raised.
            WorkerLostError: if the job failed for another reason, which the message gives in one line.
        """
        try:
            with self._losses.watched() if self._losses is not None else nullcontext():
                results: list[Any] = tasks.collect()
        except Py4JError as error:
            raise _WorkerError.find(str(error)) or job_error(error, self._losses) from None
        return results

    def _executor_cores(self) -> int | None:
        """Return the cores of an executor. Return None on a local master, whose tasks share this machine's cores."""
        cores = self._context.getConf().get("spark.executor.cores")
        return int(cores) if cores and not str(self._context.master).startswith("local") else None


def _region_settings() -> dict[str, str]:
    """Return the Spark settings that give the executors the same AWS region as this process."""
    region = find_region()
    return {f"spark.executorEnv.{name}": region for name in VARIABLES} if region else {}


def _logs_events() -> bool:
    """Return whether spark-submit started this driver with a configuration that writes event logs."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return False
    SparkContext._ensure_initialized()
    return SparkConf().get("spark.eventLog.enabled", "false") == "true"


def submitted_keys(settings: Iterable[str]) -> list[str]:
    """Return the keys of `settings` that were given to the spark-submit command which started this driver.

    Return nothing if spark-submit did not start this driver. Keys in ``spark-defaults.conf`` do not count, since that
    file is meant for all applications. Keys in a file named by ``--properties-file`` do count. If the cluster started
    this driver, the command is not known, so every configured key counts.
    """
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return []
    SparkContext._ensure_initialized()
    jvm: Any = SparkContext._jvm
    command = str(jvm.java.lang.System.getProperty("sun.java.command"))
    if "SparkSubmit" not in command:
        return [key for key in settings if SparkConf().contains(key)]
    options = command.partition(f" {sys.argv[0]}")[0]
    given = set(options.replace("=", " ").split())
    given |= {key for option, key in OPTIONS.items() if option in given}
    if file := _PROPERTIES_FILE.search(options):
        properties = jvm.java.util.Properties()
        properties.load(jvm.java.io.FileReader(file[1]))
        given |= set(properties.stringPropertyNames())
    return [key for key in settings if key in given]


class _Outcome(NamedTuple):
    """The result of a task, or the `NightjarError` that it raised."""

    value: Any
    error: NightjarError | None = None

    def unwrap(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def _run_task(function: Callable[[Any], Any], item: Any) -> _Outcome:
    """Run one task. Return a `NightjarError` instead of raising it, so that it reaches the driver unchanged.

    A `WorkerLostError` is raised, so that Spark retries the task.
    """
    try:
        return _Outcome(function(item))
    except WorkerLostError:
        raise
    except NightjarError as error:
        return _Outcome(None, error)
    finally:
        _settle_worker()


class _WorkerError(Exception):
    """Carries the `NightjarError` of a worker through Spark, which passes on only the text of an exception."""

    _PICKLED = re.compile(r"_WorkerError: pickled ([A-Za-z0-9+/=]+)")

    def __init__(self, error: NightjarError) -> None:
        super().__init__(f"pickled {base64.b64encode(pickle.dumps(error)).decode()}")

    @classmethod
    def find(cls, text: str) -> NightjarError | None:
        """Return the worker's error that is in Spark's message about a failed job. Return None if there is none."""
        found = cls._PICKLED.search(text)
        error: NightjarError | None = pickle.loads(base64.b64decode(found[1])) if found else None  # noqa: S301 - ours
        return error


def _run_barrier_task(
    function: Callable[[WorkerContext], Any], executor_cores: int | None, _items: Iterable[int]
) -> Iterator[Any]:
    """Run one worker of a worker group in a task of a barrier stage. Yield its result if its rank is 0, else None."""
    context = BarrierTaskContext.get()
    executors = [info.address for info in context.getTaskInfos()]
    hosts, rank = [address.rpartition(":")[0] for address in executors], context.partitionId()
    if executor_cores:
        threads = max(1, executor_cores // executors.count(executors[rank]))
    else:
        threads = max(1, num_cores() // hosts.count(hosts[rank]))
    try:
        result = run_worker(function, WorkerContext(rank, threads, hosts, context.allGather, crash_report_file()))
    except NightjarError as error:
        raise _WorkerError(error) from error
    finally:
        _settle_worker()
    yield result if rank == 0 else None


def _settle_worker() -> None:
    """Prepare this Python process so that PySpark does less work before and after each of the next tasks.

    Before a task, every cached `zipimporter` reads the directory of its archive again, so this function removes these
    importers from the cache. After a task, PySpark collects garbage, which scans all imported modules, so this function
    freezes the modules. Both save 0.1 CPU seconds per task, more than encoding 8 MB of text takes.
    """
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            sys.path_importer_cache.pop(path, None)
    if not gc.get_freeze_count():
        gc.freeze()
