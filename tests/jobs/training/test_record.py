"""The record of a training: what is read from its metrics, and how a replay follows it."""

import json

import pytest

from jobs.config import TrainConfig, resolve
from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.strict_json import to_jsonl
from jobs.training.attempts import Attempts
from jobs.training.record import Record, Replayed, first_difference, read_replayed, read_steps
from jobs.training.schedule import Schedule

RATES = (0.1 + 0.2, 1e-17, 5e-324, 0.0, 1 / 3)


def rows_of(*synced):
    """Return the rows of five steps, of which some end with an exchange between workers."""
    return [
        {"step": step, "learning_rate": rate, "sync_bytes": 9 * (step in synced), "loss": 1.0, "samples": "0"}
        for step, rate in enumerate(RATES, 1)
    ]


@pytest.fixture
def run(tmp_path):
    return Lake(tmp_path.as_uri()).run("r")


def finish(run, rows):
    entry = store.write_file(run.train, "metrics.jsonl", to_jsonl(rows))
    store.publish_manifest(run.train, Manifest("training", "0", (entry,)))


def test_a_record_has_exact_rates_rounds_and_left_out_batches(run):
    finish(run, rows_of(1, 2, 4, 5))
    store.write_json(run.attempts, {"restarts": 1, "skipped_batches": [7]})
    rounds = TrainConfig(strategy="diloco", allreduce_steps=2)
    assert Record.of_run(run, rounds) == Record(RATES, (4, 5), (7,))
    assert Record.of_run(run, TrainConfig()) == Record(RATES, (), (7,))


def test_what_a_run_is_to_repeat_is_read_as_it_was_written(run):
    assert read_replayed(run) is None
    written = Replayed("lab/local/r", "0" * 64, Record(RATES, (3, 5), (7, 8)))
    store.write_bytes(run.replay, written.to_json())
    assert read_replayed(run) == written
    store.write_bytes(run.replay, json.dumps({"run": "r", "record": 3}).encode())
    with pytest.raises(DamagedError, match="replay under another run id"):
        read_replayed(run)


def test_a_training_without_an_end_or_with_a_gap_has_no_record(run):
    with pytest.raises(InputError, match="the training of this run is not complete"):
        read_steps(run)
    finish(run, [rows_of()[0], rows_of()[2]])
    with pytest.raises(DamagedError, match="steps are missing"):
        read_steps(run)


def test_a_schedule_with_a_record_has_its_rates_and_no_clock():
    config = TrainConfig(epochs=4, batch_size=4, max_seconds=10.0)
    followed = Schedule.of(config, 100, 8, budget_seconds=5.0, record=Record(RATES))
    assert [followed.learning_rate(step, 99.0) for step in range(5)] == list(RATES)
    assert not followed.is_over(4, 99.0)
    assert followed.is_over(5, 0.0)
    assert not followed.is_ended_by_budget(5, 99.0)
    assert not followed.is_ended_by_time(5, 99.0)


def test_a_round_ends_where_the_recorded_one_did():
    record = Record(RATES, (2, 5))
    assert [record.round_end(step) for step in range(5)] == [2, 2, 5, 5, 5]


def test_a_replay_leaves_out_the_batches_of_its_record_from_the_start(run):
    config = resolve("none", "tiny", {}).train
    assert Attempts(run, config, print, (7, 8)).skipped == (7, 8)
    store.write_json(run.attempts, {"restarts": 0, "skipped_batches": [7, 8, 9]})
    assert Attempts(run, config, print, (7, 8)).skipped == (7, 8, 9)


def test_the_first_step_that_differs_is_named():
    one = rows_of()
    assert first_difference(one, rows_of(2)) == ""
    other = [*one[:2], one[2] | {"loss": 1.5}, one[3] | {"samples": "1"}, one[4]]
    assert first_difference(one, other) == "step 3: loss 1.0 there, 1.5 here"
    assert first_difference(one, one[:3]) == "5 steps there, 3 here"
    assert first_difference([], []) == ""
