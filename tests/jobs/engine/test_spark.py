"""The Spark engine with a real Spark session."""

import json
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from zipimport import zipimporter

import pytest
from pyspark.sql import SparkSession

from jobs.config import SparkConfig
from jobs.engine.spark import SETTINGS, TASKS_PER_SLOT, SparkEngine
from jobs.errors import DivergedError, InputError, WorkerLostError
from jobs.training.supervision.watchdog import watch
from tests.jobs.engine.test_inline import fail, fail_first, gather
from tests.support.waiting import until

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def event_log(tmp_path_factory):
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="module")
def engine(event_log):
    """An engine on an existing session, which logs its events and spills early."""
    settings = {
        **SETTINGS,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": event_log.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.shuffle.sort.bypassMergeThreshold": "1",
        "spark.shuffle.spill.numElementsForceSpillThreshold": "1000",
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
    }
    with pytest.MonkeyPatch.context() as patch:  # what the engine sets before it starts a session
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        SparkSession.builder.master("local[3,4]").config(map=settings).getOrCreate()
        engine = SparkEngine(SparkConfig(driver_memory="1g"), master="local[3,4]")
        yield engine
        engine.stop()


def refuse(item):
    raise InputError(f"item {item} is wrong")


def count_archives(_):
    return sum(isinstance(finder, zipimporter) for finder in sys.path_importer_cache.values())


def fail_once(folder):
    """Crash in the first attempt, like a task on a lost executor."""
    marker = Path(folder) / "tried"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_map_returns_results_in_the_order_of_items(engine):
    assert engine.map(len, ["a", "", "abc"] * 3, "lengths") == [1, 0, 3] * 3
    assert engine.map(len, [], "nothing") == []


def test_many_items_share_tasks(engine):
    assert engine.map(str, range(100), "many") == [str(item) for item in range(100)]
    assert engine.stages()[-1]["tasks"] == TASKS_PER_SLOT * 3


def test_a_task_does_not_read_archives_again(engine):
    engine.map(count_archives, range(6), "import the modules")
    assert 0 in engine.map(count_archives, range(6), "count")


def test_an_input_error_is_raised_without_retries(engine):
    with pytest.raises(InputError, match="item 1 is wrong"):
        engine.map(refuse, [1, 2], "refuse")
    assert [stage["failed_tasks"] for stage in engine.stages()][-1] == 0


def test_a_killed_task_is_retried(engine, tmp_path):
    assert engine.map(fail_once, [str(tmp_path)], "killed once") == ["done"]
    assert engine.stages()[-1]["failed_tasks"] == 1


def test_all_gather_returns_the_texts_of_all_workers_by_rank(engine):
    seen, world_size, pid = engine.run_worker_group(partial(gather, rounds=3), 3, "gather")
    assert world_size == 3
    assert seen == [[f"{rank}.{number}" for rank in range(3)] for number in range(3)]
    assert pid != os.getpid()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("kill", WorkerLostError, "crashed|EOF"),
        ("crash", WorkerLostError, "boom"),
        ("input", InputError, r"^the corpus is wrong$"),
    ],
)
def test_a_lost_worker_ends_the_worker_group(engine, how, error, message):
    with pytest.raises(error, match=message):
        engine.run_worker_group(partial(fail, how=how), 2, "failing")


def test_the_error_that_caused_the_others_is_the_groups(engine):
    with pytest.raises(InputError, match=r"^the corpus is wrong$"):
        engine.run_worker_group(fail_first, 2, "failing")


def diverge(context):
    raise DivergedError("the loss is not finite", step=7)


def test_an_error_keeps_its_values(engine):
    with pytest.raises(DivergedError, match=r"^the loss is not finite$") as caught:
        engine.run_worker_group(diverge, 2, "diverging")
    assert caught.value.step == 7


def hang(context):
    with watch(context.rank, 2, context.crash_report) as watchdog:
        watchdog.beat("step 7")
        if context.rank == 1:
            time.sleep(250)
        watchdog.beat_waiting("step 7")
        context.all_gather("never answered")


def test_a_hanging_worker_is_killed_and_the_driver_gets_its_stack(engine):
    started = time.monotonic()
    with pytest.raises(WorkerLostError, match="worker 1 hangs: no progress for 2 s since step 7") as caught:
        engine.run_worker_group(hang, 2, "hanging")
    assert "in hang" in str(caught.value)
    assert time.monotonic() - started < 200


def test_too_few_slots_are_an_error_at_once(engine):
    with pytest.raises(InputError, match=r"train\.workers \(4\) needs 4 slots at the same time, .* has 3"):
        engine.run_worker_group(partial(gather, rounds=1), 4, "too many")


def test_metrics_of_a_stage(engine):
    engine.map(len, ["a"] * 5, "metrics of epoch 1.5")
    stage = engine.stages()[-1]
    assert (stage["description"], stage["status"], stage["tasks"]) == ("metrics of epoch 1.5", "COMPLETE", 5)
    assert (stage["epoch"], stage["executors"], stage["failed_tasks"]) == (1.5, 1, 0)
    assert 0 < stage["cpu_seconds"] <= stage["task_seconds"] + 1
    assert stage["task_seconds_mean"] == pytest.approx(stage["task_seconds"] / 5)
    assert stage["task_seconds_mean"] <= stage["task_seconds_max"] <= stage["task_seconds"]
    assert stage["seconds"] > 0


def test_metrics_of_executors_and_their_cache(engine):
    (before,) = engine.executors()
    assert (before["executor"], before["cores"], before["cached_rdd_blocks"]) == ("driver", 3, 0)
    cached = engine._context.parallelize(range(10_000), 2).persist()
    assert cached.count() == 10_000
    (after,) = engine.executors()
    assert after["cached_rdd_blocks"] == 2
    assert after["cached_memory_bytes"] > 10_000
    assert after["tasks"] >= before["tasks"] + 2  # tasks of the worker groups that were killed above may end meanwhile
    cached.unpersist(blocking=True)


def test_metrics_of_executors_while_a_task_runs(engine, tmp_path):
    """By default, Spark's status store may lack the last 100 ms of events while an executor still runs a task."""
    end = tmp_path / "end"
    long_task = engine._context.parallelize([str(end)], 1).map(wait_for_file)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(long_task.collect)
        try:
            until(lambda: engine._context.statusTracker().getActiveStageIds(), what="the task runs")
            for _ in range(5):
                cached = engine._context.parallelize(["a", "b"], 2)._jrdd.cache()  # no Python: milliseconds
                assert cached.count() == 2
                assert engine.executors()[0]["cached_rdd_blocks"] == 2
                cached.unpersist(True)
        finally:
            end.touch()
            running.result()


def wait_for_file(path):
    until(lambda: Path(path).exists(), what=path)


def test_metrics_of_stages_equal_those_of_the_event_log(engine, event_log, tmp_path):
    """Compare a stage with a killed task, a shuffle that spills, and the stages of earlier tests, if there are any."""
    assert engine.map(fail_once, [str(tmp_path)], "a lost executor") == ["done"]
    (tmp_path / "numbers.txt").write_text("\n".join(map(str, range(20_000))))
    lines = engine._context.textFile((tmp_path / "numbers.txt").as_uri(), 3)
    lines.map(lambda line: (int(line) % 7, 1)).reduceByKey(int.__add__).saveAsTextFile((tmp_path / "sums").as_uri())
    engine._session.range(20_000).repartition(3).selectExpr("sum(id)").collect()
    engine.map(len, ["a"], "flush the event log")
    rows = {(row["stage"], row["attempt"]): row for row in engine.stages()}
    logged = read_event_log(event_log)
    assert rows.keys() >= logged.keys()
    for stage, expected in logged.items():
        found = {key: rows[stage][key] for key in expected}
        assert found == pytest.approx(expected), stage
    for key in ("failed_tasks", "input_bytes", "output_bytes", "shuffle_read_bytes", "shuffle_write_bytes",
                "memory_spilled_bytes", "disk_spilled_bytes", "task_seconds", "task_seconds_max"):  # fmt: skip
        assert sum(row[key] for row in rows.values()) > 0, key
    assert len(logged) > 4


def read_event_log(folder):
    """Return the metrics of each stage, added up over the task ends in Spark's event log."""
    (path,) = (path for path in folder.iterdir() if not path.name.startswith("."))
    events = [json.loads(line) for line in path.read_text().splitlines()]
    stages = {}
    for event in events:
        if event["Event"] == "SparkListenerTaskEnd":
            key = (event["Stage ID"], event["Stage Attempt ID"])
            add_task(stages.setdefault(key, Counter()), event)
    for event in events:
        if event["Event"] == "SparkListenerStageCompleted":
            info = event["Stage Info"]
            stages[info["Stage ID"], info["Stage Attempt ID"]]["tasks"] = info["Number of Tasks"]
    return stages


def add_task(stage, event):
    reason, metrics = event["Task End Reason"]["Reason"], event.get("Task Metrics") or {}
    stage["failed_tasks"] += reason not in ("Success", "TaskKilled")
    stage["killed_tasks"] += reason == "TaskKilled"
    seconds = metrics["Executor Run Time"] / 1e3
    if reason == "Success":
        stage["task_seconds_max"] = max(stage["task_seconds_max"], seconds)
    stage["task_seconds"] += seconds
    stage["cpu_seconds"] += metrics["Executor CPU Time"] / 1e9
    stage["gc_seconds"] += metrics["JVM GC Time"] / 1e3
    stage["memory_spilled_bytes"] += metrics["Memory Bytes Spilled"]
    stage["disk_spilled_bytes"] += metrics["Disk Bytes Spilled"]
    stage["result_bytes"] += metrics["Result Size"]
    stage["input_bytes"] += metrics["Input Metrics"]["Bytes Read"]
    stage["output_bytes"] += metrics["Output Metrics"]["Bytes Written"]
    read = metrics["Shuffle Read Metrics"]
    stage["shuffle_read_bytes"] += read["Remote Bytes Read"] + read["Local Bytes Read"]
    stage["shuffle_write_bytes"] += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
