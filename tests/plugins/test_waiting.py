"""Waiting for a turn: the operator and its trigger, on a lake of this machine."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import TaskDeferred

from jobs.config import of_run, resolve
from jobs.lake.layout import Lake
from jobs.results.summary import record_failure
from nightjar import turns
from nightjar.aws import store
from nightjar.errors import FinalError, StepFailedError
from nightjar.waiting import TakeTurnOperator, TurnTrigger, end_turn, hold_turn

HOUR = timedelta(hours=1)


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_LAKE", str(tmp_path))
    monkeypatch.setenv("NIGHTJAR_POLL_SECONDS", "0.05")
    return Lake(tmp_path.as_uri())


def night(lake, run_id, project="lab", **settings):
    """Return a run whose configuration is in the lake, and the context of its tasks."""
    run = lake.run(run_id, "poems", project)
    of_run.claim(run, resolve("s3://texts/poems", "tiny", settings))
    return run, {"ti": SimpleNamespace(dag_id="poems"), "run_id": run_id}


@pytest.fixture
def other(lake):
    """A run of another Airflow that has the turn."""
    run, _ = night(lake, "n-1", "elsewhere")
    turns.take(run, "poems", HOUR, store(), lambda turn: False)
    return run


@pytest.fixture
def operator():
    return TakeTurnOperator(task_id="take_turn", wait_hours=2)


async def event_of(trigger, after=None):
    """Return the event of a trigger, which is made anew as a triggerer does; `after` runs while it waits."""
    path, arguments = trigger.serialize()
    assert path == "nightjar.waiting.TurnTrigger"
    waiting = asyncio.ensure_future(anext(aiter(TurnTrigger(**arguments).run())))
    if after is not None:
        await asyncio.sleep(0.3)
        assert not waiting.done()
        after()
    return (await asyncio.wait_for(waiting, 20)).payload


def deferred(operator, context):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return caught.value


def test_a_run_waits_until_the_other_one_ends_its_turn(lake, operator, other):
    _, context = night(lake, "n-2")
    wait = deferred(operator, context)
    event = asyncio.run(event_of(wait.trigger, lambda: turns.end(other, store())))
    assert event.startswith("the turn is free; before, it was the turn of run n-1 of the DAG poems")
    assert operator.again(context, event, **wait.kwargs) == "this run"
    end_turn(context)


def test_a_run_that_the_lake_knows_to_have_failed_is_not_waited_for(lake, operator, other):
    _, context = night(lake, "n-2")
    wait = deferred(operator, context)
    event = asyncio.run(event_of(wait.trigger, lambda: record_failure(other, "no capacity", store())))
    assert operator.again(context, event, **wait.kwargs) == "this run"


def test_a_wait_has_a_limit_and_names_who_has_the_turn(lake, operator, other):
    run, context = night(lake, "n-2")
    limit = datetime.now(UTC).isoformat()
    trigger = TurnTrigger(lake_uri=lake.uri, folder=run.folder, limit=limit, poll_seconds=0.05, project="lab")
    assert asyncio.run(event_of(trigger)) == "the time limit of the wait is reached"
    with pytest.raises(FinalError, match=r"^waited 2 h for run n-1 of the DAG poems, whose turn began at .* UTC; end"):
        operator.again(context, "", limit)


def test_a_wait_outlives_a_lake_that_cannot_be_read(lake, operator, other):
    _, context = night(lake, "n-2")
    wait = deferred(operator, context)
    lock = lake.pipeline("poems").lock
    before = store().read_bytes(lock)
    store().write_bytes(lock, b"{")

    def repair():
        store().write_bytes(lock, before)
        turns.end(other, store())

    assert asyncio.run(event_of(wait.trigger, repair)).startswith("the turn is free")


def test_an_experiment_waits_for_nobody(lake, operator, other):
    _, context = night(lake, "n-2", **{"promotion.enabled": False})
    assert operator.execute(context) == "this run needs no turn"
    assert turns.read_turn(lake.pipeline("poems"), store())[0].run_id == "n-1"


def test_promotion_without_the_turn_is_refused_and_takes_a_free_one(lake, other):
    run, context = night(lake, "n-2")
    with pytest.raises(StepFailedError, match=r"^run n-1 .* has the turn; clear this task when that run has ended"):
        hold_turn(context)
    turns.end(other, store())
    hold_turn(context)
    assert turns.read_turn(lake.pipeline("poems"), store())[0].run == run.folder


def test_the_end_of_a_turn_hides_no_other_error(lake, caplog):
    _, context = night(lake, "n-2")
    store().write_bytes(lake.pipeline("poems").lock, b"{")
    end_turn(context)
    assert "The turn could not be ended" in caplog.text


def test_a_run_of_this_airflow_counts_as_at_work_where_airflow_cannot_be_asked(lake, operator):
    first, context = night(lake, "n-1")
    operator.execute(context)
    assert deferred(operator, night(lake, "n-2")[1]).trigger
    assert turns.read_turn(lake.pipeline("poems"), store())[0].run == first.folder
