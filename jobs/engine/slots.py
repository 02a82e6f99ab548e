"""The slots of a Spark application: how many its settings promise, how many it has, and the wait for those missing."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from pyspark import SparkContext

from jobs.engine.losses import LossWatch
from jobs.errors import CapacityError, InputError

log = logging.getLogger(__name__)

WAIT_SECONDS = 1200.0
"""Most seconds to wait for slots that were promised: a node may be late, or lost and replaced."""
SAY_SECONDS = 60.0
"""Seconds between two messages about what is missing."""
_LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,.*")


def is_local(context: SparkContext) -> bool:
    """Return whether the only executor is the driver itself, which has its slots from the start."""
    return re.match(r"local(\[|$)", str(context.master)) is not None


def promised(context: SparkContext) -> int | None:
    """Return the number of slots once all executors have started; None if the settings do not say."""
    conf, master = context.getConf(), str(context.master)
    if is_local(context):
        return int(_jvm(context).defaultParallelism())
    if sizes := _LOCAL_CLUSTER.fullmatch(master):
        return int(sizes[1]) * int(sizes[2])
    executors = promised_executors(context)
    return executors * int(conf.get("spark.executor.cores") or 1) if executors else None


def promised_executors(context: SparkContext) -> int | None:
    """Return the number of executors that the master or the settings ask for, if they do."""
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
            " leave it out of spark-submit"
        )
    slots = promised(context)
    if slots is not None and slots < workers:
        raise InputError(
            f"train.workers ({workers}) needs as many slots at the same time, but Spark on {context.master} has"
            f" {slots}: lower train.workers, or raise spark.executors or spark.executor_cores"
        )


def wait(context: SparkContext, needed: int, losses: LossWatch | None) -> None:
    """Wait until Spark has `needed` slots at the same time, and say every minute what is missing.

    Nothing is waited for where executors come only when tasks do.

    Raises:
        CapacityError: if the cluster has not started them in time, or has ended the application.
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
                f"{_missing(context, slots, needed, losses)} after {waited / 60:.0f} minutes: a node of the cluster is"
                " lost or late, or its memory is taken; try again, or raise cluster.core_instances"
            )
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            log.warning(
                "%s; waiting for %.0f of at most %.0f minutes",
                _missing(context, slots, needed, losses),
                waited / 60,
                WAIT_SECONDS / 60,
            )
        time.sleep(0.5)


def _missing(context: SparkContext, slots: int, needed: int, losses: LossWatch | None) -> str:
    """Return how many slots and executors there are, and why the last executor was lost."""
    text = f"Spark on {context.master} has {slots} of {needed} slots"
    if executors := promised_executors(context):
        # The driver has an entry, too.
        have = _jvm(context).getExecutorMemoryStatus().size() - 1
        text += f" and {have} of {executors} executors"
    return text + _last_loss(losses)


def _last_loss(losses: LossWatch | None) -> str:
    """Return why the last executor was lost, to be appended to a message; nothing if none was."""
    last = losses.last() if losses is not None else ""
    return f"; {last}" if last else ""


def _is_dynamic(context: SparkContext) -> bool:
    return context.getConf().get("spark.dynamicAllocation.enabled") == "true"


def _jvm(context: SparkContext) -> Any:
    """Return the SparkContext of the JVM."""
    return context._jsc.sc()
