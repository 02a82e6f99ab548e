"""The Spark engine on a real Spark session."""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from zipimport import zipimporter

import pytest

from jobs.config import SparkConfig
from jobs.engine.spark import SparkEngine
from jobs.errors import InputError, WorkerLostError
from tests.jobs.engine.test_inline import fail, gather


@pytest.fixture(scope="module")
def engine():
    engine = SparkEngine(SparkConfig(driver_memory="1g"), master="local[3,4]")
    yield engine
    engine.stop()


def refuse(item):
    raise InputError(f"item {item} is wrong")


def count_archives(_):
    return sum(isinstance(finder, zipimporter) for finder in sys.path_importer_cache.values())


def fail_once(folder):
    """Crash in the first attempt, as a lost executor would."""
    marker = Path(folder) / "tried"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_map_keeps_order(engine):
    assert engine.map(len, ["a", "", "abc"] * 3, "lengths") == [1, 0, 3] * 3
    assert engine.map(len, [], "nothing") == []


def test_a_task_reads_no_archive_again(engine):
    engine.map(count_archives, range(6), "import what is needed")
    assert 0 in engine.map(count_archives, range(6), "count")


def test_a_users_error_comes_back_at_once(engine):
    with pytest.raises(InputError, match="item 1 is wrong"):
        engine.map(refuse, [1, 2], "refuse")
    assert [stage["failed_tasks"] for stage in engine.stages()][-1] == 0


def test_a_killed_task_is_tried_again(engine, tmp_path):
    assert engine.map(fail_once, [str(tmp_path)], "killed once") == ["done"]
    assert engine.stages()[-1]["failed_tasks"] == 1


def test_gang(engine):
    seen, world_size, pid = engine.gang(partial(gather, rounds=3), 3, "gather")
    assert world_size == 3
    assert seen == [[f"{rank}.{number}" for rank in range(3)] for number in range(3)]
    assert pid != os.getpid()


@pytest.mark.parametrize(
    ("how", "error", "message"), [("kill", WorkerLostError, "crashed|EOF"), ("crash", WorkerLostError, "boom")]
)
def test_a_lost_member_ends_the_gang(engine, how, error, message):
    with pytest.raises(error, match=message):
        engine.gang(partial(fail, how=how), 2, "failing")


def test_too_few_slots_are_said_at_once(engine):
    with pytest.raises(InputError, match=r"train\.workers \(4\) need as many slots at once, .* has 3"):
        engine.gang(partial(gather, rounds=1), 4, "too many")


def test_stage_figures(engine):
    engine.map(len, ["a"] * 5, "figures")
    stage = engine.stages()[-1]
    assert (stage["description"], stage["status"], stage["tasks"]) == ("figures", "COMPLETE", 5)
    assert 0 < stage["cpu_seconds"] <= stage["task_seconds"] + 1
    assert stage["seconds"] > 0
