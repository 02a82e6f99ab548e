"""Metrics of Spark's stages and executors, read from the status store, the data source of Spark's web interface."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from pyspark import SparkContext

from jobs.metrics.stats import ExecutorRow, StageRow

Fields = dict[str, Any]
"""A stage or an executor as Spark's REST interface describes it."""

_FRAME = re.compile(r"\s+(at |\.\.\. \d+ more)|\s*$")
_EPOCH = re.compile(r"\bepoch (\d+(?:\.\d+)?)")


def stages(context: SparkContext) -> list[StageRow]:
    """Return one row for each attempt at each stage so far, ordered by stage and attempt.

    Durations are in seconds, sizes in bytes.

    `task_seconds_max` is the longest task that succeeded; the other durations of tasks include failed ones.
    """
    store, gateway = _store(context)
    quantiles = gateway.new_array(gateway.jvm.double, 1)
    quantiles[0] = 1.0
    found = _plain(gateway, store.stageList(None, False, True, quantiles, None))
    rows = [_stage_row(stage, store.executorSummary(stage["stageId"], stage["attemptId"]).size()) for stage in found]
    return sorted(rows, key=lambda row: (row["stage"], row["attempt"]))


def executors(context: SparkContext) -> list[ExecutorRow]:
    """Return one row for each executor that the application has or had, with its totals so far."""
    store, gateway = _store(context)
    return [_executor_row(executor) for executor in _plain(gateway, store.executorList(False))]


def lost_executors(context: SparkContext) -> list[dict[str, str]]:
    """Return the id and address of each executor that the application lost, and the reason that the cluster gave.

    Do not wait until Spark has processed all events, so that frequent calls are cheap.
    """
    found = _plain(context._gateway, context._jsc.sc().statusStore().executorList(False))
    return [
        {"executor": each["id"], "address": each["hostPort"], "reason": _without_stack(str(each["removeReason"]))}
        for each in found
        if not each["isActive"] and each.get("removeReason")
    ]


def _without_stack(reason: str) -> str:
    """Return the text `reason` in one line, without the stack frames of exceptions."""
    return " ".join(line.strip() for line in reason.splitlines() if not _FRAME.match(line)).strip()


def _store(context: SparkContext) -> tuple[Any, Any]:
    """Wait until Spark has processed all events. Return its status store, and py4j's gateway to the JVM."""
    gateway, jvm_context = context._gateway, context._jsc.sc()
    jvm_context.listenerBus().waitUntilEmpty()
    return jvm_context.statusStore(), gateway


def _plain(gateway: Any, objects: Any) -> Any:
    """Return objects of the JVM as Python values, with the fields of Spark's REST interface.

    This takes one call into the JVM instead of one for each field.
    """
    writer = gateway.jvm.org.apache.spark.status.api.v1.JacksonMessageWriter()
    return json.loads(writer.mapper().writeValueAsString(objects))


def _stage_row(stage: Fields, num_executors: int) -> StageRow:
    description = stage.get("description") or stage["name"]
    epoch = _EPOCH.search(description)
    longest = (stage.get("taskMetricsDistributions") or {}).get("executorRunTime") or [0.0]
    num_ended = sum(stage[key] for key in ("numCompleteTasks", "numFailedTasks", "numKilledTasks"))
    return {
        "stage": stage["stageId"],
        "attempt": stage["attemptId"],
        "description": description,
        "epoch": float(epoch[1]) if epoch else 0.0,
        "status": stage["status"],
        "executors": num_executors,
        "tasks": stage["numTasks"],
        "failed_tasks": stage["numFailedTasks"],
        "killed_tasks": stage["numKilledTasks"],
        "seconds": _seconds(stage.get("submissionTime"), stage.get("completionTime")),
        "task_seconds": stage["executorRunTime"] / 1e3,
        "task_seconds_mean": stage["executorRunTime"] / 1e3 / max(1, num_ended),
        "task_seconds_max": longest[0] / 1e3,
        "cpu_seconds": stage["executorCpuTime"] / 1e9,
        "gc_seconds": stage["jvmGcTime"] / 1e3,
        "input_bytes": stage["inputBytes"],
        "output_bytes": stage["outputBytes"],
        "shuffle_read_bytes": stage["shuffleReadBytes"],
        "shuffle_write_bytes": stage["shuffleWriteBytes"],
        "memory_spilled_bytes": stage["memoryBytesSpilled"],
        "disk_spilled_bytes": stage["diskBytesSpilled"],
        "result_bytes": stage["resultSize"],
    }


def _executor_row(executor: Fields) -> ExecutorRow:
    return {
        "executor": executor["id"],
        "address": executor["hostPort"],
        "active": int(executor["isActive"]),
        "cores": executor["totalCores"],
        "tasks": executor["totalTasks"],
        "failed_tasks": executor["failedTasks"],
        "task_seconds": executor["totalDuration"] / 1e3,
        "gc_seconds": executor["totalGCTime"] / 1e3,
        "input_bytes": executor["totalInputBytes"],
        "shuffle_read_bytes": executor["totalShuffleRead"],
        "shuffle_write_bytes": executor["totalShuffleWrite"],
        "storage_memory_bytes": executor["maxMemory"],
        "cached_rdd_blocks": executor["rddBlocks"],
        "cached_memory_bytes": executor["memoryUsed"],
        "cached_disk_bytes": executor["diskUsed"],
    }


def _seconds(begun: str | None, ended: str | None) -> float:
    """Return the seconds between two times such as ``2026-11-22T04:00:00.123GMT``. Return 0 if a time is missing."""
    if not (begun and ended):
        return 0.0
    first, last = (datetime.fromisoformat(moment.removesuffix("GMT")) for moment in (begun, ended))
    return (last - first).total_seconds()
