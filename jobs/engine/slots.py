"""Counts the slots that a Spark application has now and those that its settings promise. Waits for missing slots."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from pyspark import SparkContext

from jobs.engine.lost_executors import LossWatch
from jobs.errors import CapacityError, InputError

log = logging.getLogger(__name__)

WAIT_SECONDS = 1200.0
"""Maximum seconds to wait for the promised slots. A node may start late, or be lost and replaced."""
SAY_SECONDS = 60.0
"""Seconds between two log messages about missing slots, during the wait."""
_LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,.*")


def is_local(context: SparkContext) -> bool:
    """Return whether the driver is the only executor. All its slots then exist from the start."""
    return re.match(r"local(\[|$)", str(context.master)) is not None


def promised(context: SparkContext) -> int | None:
    """Return the number of slots that the application has once all its executors have started.

    Return None if the settings do not determine this number.
    """
    conf, master = context.getConf(), str(context.master)
    if is_local(context):
        return int(_jvm(context).defaultParallelism())
    if sizes := _LOCAL_CLUSTER.fullmatch(master):
        return int(sizes[1]) * int(sizes[2])
    executors = promised_executors(context)
    return executors * int(conf.get("spark.executor.cores") or 1) if executors else None


def promised_executors(context: SparkContext) -> int | None:
    """Return the number of executors in the master URL or in the settings. Return None if neither has such a number."""
    sizes = _LOCAL_CLUSTER.fullmatch(str(context.master))
    executors = sizes[1] if sizes else context.getConf().get("spark.executor.instances")
    return int(executors) if executors else None


def now(context: SparkContext) -> int:
    """Return the number of slots that Spark has now."""
    jvm = _jvm(context)
    return int(jvm.maxNumConcurrentTasks(jvm.resourceProfileManager().defaultResourceProfile()))


def check(context: SparkContext, workers: int) -> None:
    """Check that the settings promise a slot for each worker of a group."""
    if _is_dynamic(context):
        raise InputError(
            "spark.dynamicAllocation.enabled=true: workers that train together need a fixed number of executors;"
            " leave this setting out of spark-submit"
        )
    slots = promised(context)
    if slots is not None and slots < workers:
        raise InputError(
            f"train.workers ({workers}) needs {workers} slots at the same time, but Spark on {context.master} has"
            f" {slots}; lower train.workers, or raise spark.executors or spark.executor_cores"
        )


def wait(context: SparkContext, needed: int, losses: LossWatch | None) -> None:
    """Wait until Spark has `needed` slots at the same time, and log every minute what is missing.

    Return at once on a local master, and with dynamic allocation, which starts executors only for waiting tasks.

    Raises:
        CapacityError: if the cluster has not provided the slots in time, or has ended the application.
    """
    if is_local(context) or _is_dynamic(context):
        return
    started = time.monotonic()
    said = started
    while (slots := now(context)) < needed:
        if losses is not None:
            losses.poll()
        waited = time.monotonic() - started
        if _jvm(context).isStopped():
            raise CapacityError(f"the cluster has ended Spark's application{_last_loss(losses)}")
        if waited >= WAIT_SECONDS:
            raise CapacityError(
                f"after {waited / 60:.0f} minutes, {_missing(context, slots, needed, losses)}; a node of the cluster"
                " was lost or has not started, or its memory is in use; try again, or raise cluster.core_instances"
            )
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            log.warning(
                "%s; waited %.0f of at most %.0f minutes",
                _missing(context, slots, needed, losses),
                waited / 60,
                WAIT_SECONDS / 60,
            )
        time.sleep(0.5)


def _missing(context: SparkContext, slots: int, needed: int, losses: LossWatch | None) -> str:
    """Return a message: how many slots and executors there are, and why the last executor was lost."""
    text = f"Spark on {context.master} has {slots} of {needed} slots"
    if executors := promised_executors(context):
        # The driver has an entry in this status, too.
        have = _jvm(context).getExecutorMemoryStatus().size() - 1
        text += f" and {have} of {executors} executors"
    return text + _last_loss(losses)


def _last_loss(losses: LossWatch | None) -> str:
    """Return the end of a message: why the last executor was lost. Return an empty text if none was lost."""
    last = losses.last() if losses is not None else ""
    return f"; {last}" if last else ""


def _is_dynamic(context: SparkContext) -> bool:
    return context.getConf().get("spark.dynamicAllocation.enabled") == "true"


def _jvm(context: SparkContext) -> Any:
    """Return the JVM's own SparkContext object, which has methods that PySpark's lacks."""
    return context._jsc.sc()
