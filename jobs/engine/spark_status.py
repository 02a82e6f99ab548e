"""Figures of Spark's work, from its own status store: what its web interface shows, also where that is off."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from pyspark import SparkContext

Figures = dict[str, Any]

_EPOCH = re.compile(r"\bepoch (\d+(?:\.\d+)?)")


def stages(context: SparkContext) -> list[Figures]:
    """One row for each attempt of each stage so far, by number. Durations in seconds, sizes in bytes.

    `task_seconds` is the sum over all tasks, also those that failed, `task_seconds_mean` their mean; `task_seconds_max`
    is of the tasks that succeeded.
    """
    store, gateway = _store(context)
    quantiles = gateway.new_array(gateway.jvm.double, 1)
    quantiles[0] = 1.0
    found = _plain(gateway, store.stageList(None, False, True, quantiles, None))
    rows = [
        _stage(figures, store.executorSummary(figures["stageId"], figures["attemptId"]).size()) for figures in found
    ]
    return sorted(rows, key=lambda row: (row["stage"], row["attempt"]))


def executors(context: SparkContext) -> list[Figures]:
    """One row for each executor that the application has or had; figures are of all that it did so far."""
    store, gateway = _store(context)
    return [_executor(figures) for figures in _plain(gateway, store.executorList(False))]


def _store(context: SparkContext) -> tuple[Any, Any]:
    """The status store, once it knows all that has happened, and the way to it."""
    gateway, jvm_context = context._gateway, context._jsc.sc()
    jvm_context.listenerBus().waitUntilEmpty()
    return jvm_context.statusStore(), gateway


def _plain(gateway: Any, figures: Any) -> Any:
    """Objects of the JVM as Spark's REST interface would send them: one call for all, not one for each field."""
    writer = gateway.jvm.org.apache.spark.status.api.v1.JacksonMessageWriter()
    return json.loads(writer.mapper().writeValueAsString(figures))


def _stage(figures: Figures, num_executors: int) -> Figures:
    description = figures.get("description") or figures["name"]
    epoch = _EPOCH.search(description)
    longest = (figures.get("taskMetricsDistributions") or {}).get("executorRunTime") or [0.0]
    num_ended = sum(figures[key] for key in ("numCompleteTasks", "numFailedTasks", "numKilledTasks"))
    return {
        "stage": figures["stageId"],
        "attempt": figures["attemptId"],
        "description": description,
        "epoch": float(epoch[1]) if epoch else 0.0,
        "status": figures["status"],
        "executors": num_executors,
        "tasks": figures["numTasks"],
        "failed_tasks": figures["numFailedTasks"],
        "killed_tasks": figures["numKilledTasks"],
        "seconds": _seconds(figures.get("submissionTime"), figures.get("completionTime")),
        "task_seconds": figures["executorRunTime"] / 1e3,
        "task_seconds_mean": figures["executorRunTime"] / 1e3 / max(1, num_ended),
        "task_seconds_max": longest[0] / 1e3,
        "cpu_seconds": figures["executorCpuTime"] / 1e9,
        "gc_seconds": figures["jvmGcTime"] / 1e3,
        "input_bytes": figures["inputBytes"],
        "output_bytes": figures["outputBytes"],
        "shuffle_read_bytes": figures["shuffleReadBytes"],
        "shuffle_write_bytes": figures["shuffleWriteBytes"],
        "memory_spilled_bytes": figures["memoryBytesSpilled"],
        "disk_spilled_bytes": figures["diskBytesSpilled"],
        "result_bytes": figures["resultSize"],
    }


def _executor(figures: Figures) -> Figures:
    return {
        "executor": figures["id"],
        "address": figures["hostPort"],
        "active": int(figures["isActive"]),
        "cores": figures["totalCores"],
        "tasks": figures["totalTasks"],
        "failed_tasks": figures["failedTasks"],
        "task_seconds": figures["totalDuration"] / 1e3,
        "gc_seconds": figures["totalGCTime"] / 1e3,
        "input_bytes": figures["totalInputBytes"],
        "shuffle_read_bytes": figures["totalShuffleRead"],
        "shuffle_write_bytes": figures["totalShuffleWrite"],
        "storage_memory_bytes": figures["maxMemory"],
        "cached_rdd_blocks": figures["rddBlocks"],
        "cached_memory_bytes": figures["memoryUsed"],
        "cached_disk_bytes": figures["diskUsed"],
    }


def _seconds(begun: str | None, ended: str | None) -> float:
    """Between two times like ``2026-11-22T04:00:00.123GMT``; 0 if one of them is not there."""
    if not (begun and ended):
        return 0.0
    first, last = (datetime.fromisoformat(moment.removesuffix("GMT")) for moment in (begun, ended))
    return (last - first).total_seconds()
