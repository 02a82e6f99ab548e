"""Turns: one run of a pipeline that promotes works at a time, and no run that died keeps others waiting."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from jobs.errors import DamagedError
from jobs.lake.layout import Lake, Pipeline
from jobs.lake.store import Store
from nightjar import turns
from nightjar.aws import store

NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)
LIFE = timedelta(hours=5)


def night(lake_uri, name, pipeline="poems"):
    return Lake(lake_uri).run(name, pipeline)


def take(run, now=NOW, is_over=lambda turn: False, files=None):
    return turns.take(run, run.pipeline, LIFE, files or store(), is_over, now)


def test_a_run_waits_for_the_one_that_has_the_turn(lake_uri):
    first, second = night(lake_uri, "n-1"), night(lake_uri, "n-2")
    assert take(first) is None
    holder = take(second, NOW + timedelta(hours=1))
    assert str(holder) == "run n-1 of the DAG poems, whose turn began at 2026-11-26 02:00 UTC"
    turns.end(first, store(), NOW + timedelta(hours=2))
    assert take(second, NOW + timedelta(hours=2)) is None
    assert take(first, NOW + timedelta(hours=2)).run_id == "n-2"


def test_pipelines_do_not_wait_for_each_other(lake_uri):
    assert take(night(lake_uri, "n-1", "poems")) is None
    assert take(night(lake_uri, "n-1", "plays")) is None


def test_a_run_that_has_the_turn_renews_it(lake_uri):
    first, second = night(lake_uri, "n-1"), night(lake_uri, "n-2")
    take(first)
    assert take(first, NOW + timedelta(hours=4)) is None
    holder = take(second, NOW + timedelta(hours=6))
    assert (holder.since, holder.expires) == (NOW, NOW + timedelta(hours=9))


def test_a_turn_expires(lake_uri):
    first, second = night(lake_uri, "n-1"), night(lake_uri, "n-2")
    take(first)
    assert take(second, NOW + LIFE - timedelta(seconds=1)) is not None
    assert take(second, NOW + LIFE) is None
    turns.end(first, store())  # the run that lost it leaves it alone
    assert take(first, NOW + LIFE).run_id == "n-2"


def test_the_turn_of_a_run_that_is_over_is_taken_over(lake_uri):
    first, second = night(lake_uri, "n-1"), night(lake_uri, "n-2")
    take(first)
    asked = []
    assert take(second, is_over=lambda turn: asked.append(turn.run_id) or True) is None
    assert asked == ["n-1"]


def test_of_many_runs_at_once_one_gets_the_turn(lake_uri):
    runs = [night(lake_uri, f"n-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(take, runs))
    assert found.count(None) == 1
    assert {each.run_id for each in found if each} == {runs[found.index(None)].run_id}


class Dying(Store):
    """A store whose process dies at one of its writes: before it, or when its answer is on the way."""

    def __init__(self, number, after):
        super().__init__(retry_seconds=0)
        self.numbers, self.number, self.after = count(), number, after

    def _write(self, operation, *arguments):
        is_last = next(self.numbers) == self.number
        if is_last and not self.after:
            raise KeyboardInterrupt
        done = operation(*arguments)
        if is_last:
            raise KeyboardInterrupt
        return done

    def publish(self, uri, data):
        return self._write(super().publish, uri, data)

    def replace(self, uri, data, version):
        return self._write(super().replace, uri, data, version)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("is_second", [False, True])
def test_a_run_that_dies_at_any_write_keeps_nobody_waiting(tmp_path, number, after, is_second):
    """A night takes its turn, renews it twice and ends it: four writes, with and without an earlier night."""
    lake_uri = tmp_path.as_uri()
    if is_second:
        take(night(lake_uri, "n-0"))
        turns.end(night(lake_uri, "n-0"), store(), NOW)
    first, second = night(lake_uri, "n-1"), night(lake_uri, "n-2")
    dying = Dying(number, after)

    def whole_night():
        for _ in range(3):
            take(first, files=dying)
        turns.end(first, dying, NOW)

    with pytest.raises(KeyboardInterrupt):
        whole_night()
    assert take(first) is None  # its retry goes on
    assert take(second, NOW + LIFE + timedelta(minutes=1)) is None  # no Airflow says that it is over
    assert take(first, NOW + LIFE + timedelta(minutes=1)).run_id == "n-2"
    assert take(first, NOW + LIFE + timedelta(minutes=1), is_over=lambda turn: True) is None  # Airflow says so


@pytest.mark.parametrize("content", [b"", b"{}", b'{"run": 1}', b"\xff", b"[]"])
def test_a_damaged_file_is_named(tmp_path, content):
    run = night(tmp_path.as_uri(), "n-1")
    store().write_bytes(Pipeline.of(run).lock, content)
    with pytest.raises(DamagedError, match=r"lock\.json: not what Nightjar writes .*; delete it if no run"):
        take(run)
