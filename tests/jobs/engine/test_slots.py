"""Slots that were promised are waited for, and lost executors are named: on a cluster of processes of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from jobs.engine import slots
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.spark

START = """
import json, logging, os, psutil, sys, time
from jobs.config import SparkConfig
from jobs.engine import slots
from jobs.engine.spark import SparkEngine
from jobs.errors import NightjarError, WorkerLostError

logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
slots.WAIT_SECONDS, slots.SAY_SECONDS = 6.0, 2.0
"""
NO_ROOM = """
# No worker has two cores, so no executor starts.
os.environ["PYSPARK_SUBMIT_ARGS"] = "--conf spark.executor.cores=2 pyspark-shell"
engine = SparkEngine(SparkConfig(executor_memory="512m"), "local-cluster[1,1,1024]")
for run in (lambda: engine.run_worker_group(lambda context: 0, 1, "group"), lambda: engine.map(len, [""], "map")):
    started = time.monotonic()
    try:
        run()
    except NightjarError as error:
        print("FOUND", json.dumps([type(error).__name__, error.exit_code, str(error), time.monotonic() - started]))
"""
LOST = """
slots.WAIT_SECONDS = 60.0
engine = SparkEngine(SparkConfig(executors=2, executor_cores=1, executor_memory="512m"), "local-cluster[2,1,1024]")

def lose_the_executor(context):
    import psutil
    if context.rank == 1:
        next(each for each in psutil.Process().parents() if each.name() == "java").kill()
    time.sleep(10)

try:
    engine.run_worker_group(lose_the_executor, 2, "lost")
except WorkerLostError as error:
    print("FOUND", json.dumps([str(error), engine.run_worker_group(lambda context: context.world_size, 2, "again")]))
engine.stop()
"""
NO_START = """
try:
    SparkEngine(SparkConfig(), "local[0]")
except NightjarError as error:
    print("FOUND", json.dumps([error.exit_code, str(error)]))
"""


def run(program: str, folder) -> tuple[list[list], str]:
    """Return what a program found, and all that it printed."""
    home = folder / "spark"  # executors write to its folder `work`
    home.mkdir()
    for entry in Path(pyspark.__path__[0]).iterdir():
        (home / entry.name).symlink_to(entry)
    env = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", START + program]
    done = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    found = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert found, done.stderr[-3000:]
    return found, done.stdout


def test_the_wait_is_as_long_as_emr_needs_to_replace_a_node():
    assert slots.WAIT_SECONDS == 20 * 60


@pytest.mark.long
def test_slots_that_do_not_come_are_an_error_that_may_pass(tmp_path):
    found, printed = run(NO_ROOM, tmp_path)
    for name, exit_code, message, seconds in found:
        assert (name, exit_code) == ("CapacityError", 1)
        assert message.startswith(
            "after 0 minutes, Spark on local-cluster[1,1,1024] has 0 of 1 slots and 0 of 1 executors; a"
        )
        assert seconds >= 6
    assert len(found) == 2
    assert printed.count("Spark on local-cluster[1,1,1024] has 0 of 1 slots and 0 of 1 executors; waited ") >= 4


@pytest.mark.long
def test_a_lost_executor_is_named_and_its_slot_waited_for(tmp_path):
    [[message, world_size]], printed = run(LOST, tmp_path)
    assert message.startswith("executor ")
    assert " was lost: " in message
    assert "An error occurred while calling" not in message
    assert world_size == 2
    assert " was lost: " in printed.partition("FOUND")[0]


def test_an_application_that_cannot_start_says_why(tmp_path):
    [[exit_code, message]], _ = run(NO_START, tmp_path)
    assert exit_code == 1
    assert message.startswith("Spark on local[0] did not start: SparkException: ")
    assert "0 threads" in message
