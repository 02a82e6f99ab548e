"""A user cancels a step in a live Airflow: its processes and its cluster end, and the run ends in the right state.

A task is marked failed or cleared, or its run is marked failed: while a worker has the task, while the task is deferred
and its step runs, and while the step waits for a cluster that starts. `make planted` runs these tests.
"""

import math
import time

import psutil
import pytest

from bench.table import show
from infra.emr.control import Control
from tests.support.airflow import Emr
from tests.support.live import live_user
from tests.support.waiting import until

pytestmark = [pytest.mark.airflow, pytest.mark.planted]

LIMIT_SECONDS = 15.0
TASK = "tokenize"


@pytest.fixture(scope="module")
def user(tmp_path_factory, corpus):
    with live_user(tmp_path_factory.mktemp("cancel"), corpus) as logged_in:
        yield logged_in


@pytest.fixture(scope="module")
def emr(user):
    return Emr(user.airflow.emr_endpoint)


@pytest.fixture(scope="module")
def table():
    rows = []
    yield rows
    show("Cancelled steps", ("while", "action", "processes gone after s", "clusters", "run"), rows)


@pytest.mark.parametrize("moment", ["running", "deferred", "provisioning"])
@pytest.mark.parametrize("action", ["task failed", "task cleared", "run failed"])
def test_nothing_of_a_cancelled_step_is_left(user, emr, progress, table, moment, action):
    control = Control(emr.endpoint)
    if moment == "running":  # the worker waits for this answer while the step runs
        control.fault("delayed", operation="DescribeStep", seconds=40)
    if moment == "provisioning":
        control.fault("slow-start", seconds=600)
    # A step hangs once. One that never starts must not hang when it is tried again.
    run = user.trigger(**({} if moment == "provisioning" else {"spark__app_name": f"hang:{TASK}"}))
    until(lambda: emr.steps(run.run_id))
    if moment == "provisioning":
        until(lambda: user.states(run)[TASK] == "deferred")
        assert emr.clusters(run.run_id) == ["STARTING"]
        assert emr.steps(run.run_id) == [(TASK, "PENDING")]
    else:
        progress(run, TASK)
        until(lambda: user.states(run)[TASK] == moment)
        assert processes(run)
    started = time.time()
    if action == "task cleared":
        user.clear(run, TASK)
    else:
        user.mark(run, "failed", TASK if action == "task failed" else "")
    until(lambda: (TASK, "CANCELLED") in emr.steps(run.run_id) and not processes(run, before=started), LIMIT_SECONDS)
    seconds = time.time() - started
    final = user.wait(run)
    control.clear()
    table.append((moment, action, f"{seconds:.1f}", " ".join(emr.clusters(run.run_id)), final))
    assert (TASK, "CANCELLED") in emr.steps(run.run_id)
    assert set(emr.clusters(run.run_id)) == {"TERMINATED"}
    states = user.states(run)
    assert states["terminate_cluster"] == "success"
    if action == "task cleared":
        assert final == "success"
        assert emr.steps(run.run_id).count((TASK, "COMPLETED")) == 1
    else:
        assert (final, states[TASK], states["verdict"]) == ("failed", "failed", "failed")
        assert emr.steps(run.run_id) == [(TASK, "CANCELLED")]


def processes(run, before=math.inf):
    """Return the processes of a run's steps that have started before a time.

    Driver, JVM and guard have the run's configuration in their arguments.
    """
    found = psutil.process_iter(["cmdline", "create_time", "status"])
    own = [process.info for process in found if run.config in (process.info["cmdline"] or [])]
    return [each for each in own if each["status"] != psutil.STATUS_ZOMBIE and each["create_time"] < before]
