"""Warm starts and early stopping."""

import math
from itertools import pairwise

import pytest

from jobs.engine.inline import InlineEngine
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.manifest import Manifest
from jobs.lake.uri import base_name, join
from jobs.results.rows import evaluation_rows, read_parts
from jobs.steps import train
from jobs.training.checkpoint import TrainingState, latest_checkpoint
from jobs.training.schedule import Schedule
from tests.support.handmade import FINGERPRINT, make_run, metrics, train_tokenizer

pytestmark = pytest.mark.slow

FEW = {"train__max_tokens": 40 * 12 * 16, "train__batch_size": 12, "train__eval_every": 4, "train__sync_every": 4}
STRATEGIES = ["allreduce", "average"]


def train_run(place, name, **settings):
    run, config = make_run(place, name, **{**FEW, **settings})
    return run, train.run(run, config, InlineEngine(), lambda _: None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_warm_start_begins_with_the_loss_of_the_earlier_model(place, strategy):
    earlier, stats = train_run(place, "earlier")
    champion = join(place.models, "one")
    for info in store.list_files(earlier.model):
        store.write_bytes(join(champion, base_name(info.uri)), store.read_bytes(info.uri))
    store.write_json(place.pipeline().champion, {"model": "one", "run_id": "r"})
    for number, init in enumerate(["earlier", "champion", earlier.model, earlier.model_archive]):
        run, later = train_run(
            place, f"later{number}", train__strategy=strategy, train__init=init, train__learning_rate=1e-6,
            train__max_tokens=2 * 12 * 16,
        )  # fmt: skip
        assert later["weights_from"] == (champion if init == "champion" else init if "/" in init else earlier.model)
        assert metrics(run)[-1]["valid_loss"] == pytest.approx(stats["valid_loss"], abs=1e-3)
    assert stats["weights_from"] == "scratch"


def test_a_lake_without_champion_starts_from_scratch_when_asked_to(place, caplog):
    caplog.set_level("INFO", "jobs")
    settings = {"train__max_tokens": 12 * 16, "train__init": "champion-or-scratch"}
    run, stats = train_run(place, "first", **settings)
    assert "the lake has no champion yet, so training starts from scratch" in caplog.text
    assert stats["weights_from"] == "scratch"
    for info in store.list_files(run.model):
        store.write_bytes(join(place.models, "one", base_name(info.uri)), store.read_bytes(info.uri))
    store.write_json(place.pipeline().champion, {"model": "one", "run_id": "first"})
    second, stats = train_run(place, "second", **settings)
    assert stats["weights_from"] == join(place.models, "one")
    card = store.read_bytes(join(second.model, "README.md")).decode()
    assert f"trained from the weights of {join(place.models, 'one')}" in " ".join(card.split())
    store.delete_file(place.pipeline().champion)
    with pytest.raises(InputError, match="no champion yet"):
        train_run(place, "third", **{**settings, "train__init": "champion"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train__init": "nothing"}, "nothing: no model found"),
        (
            {"train__init": "earlier", "model__num_layers": 1},
            r"train\.init .*num_layers is 2 in that model and 1 in this",
        ),
        (
            {"train__init": "earlier", "model__hidden_size": 96},
            r"model\.hidden_size is 64 in that model and 96 in this",
        ),
    ],
)
def test_a_model_of_another_shape_is_an_error(place, settings, message):
    train_run(place, "earlier", train__max_tokens=12 * 16)
    with pytest.raises(InputError, match=message):
        train_run(place, "later", **settings)


def test_a_model_with_another_tokenizer_is_an_error(place):
    train_run(place, "earlier", train__max_tokens=12 * 16)
    other = train_tokenizer("another text than that of the other tokenizer " * 20)
    folder = place.dataset("tokens", FINGERPRINT)
    store.delete_folder(folder)
    entry = store.write_file(folder, "tokenizer.json", other.json)
    store.publish_manifest(folder, Manifest("tokens", FINGERPRINT, (entry,), inputs={"files": []}))
    with pytest.raises(InputError, match=r"train\.init .*its tokenizer \(\w+\) differs from this run's \(\w+\)"):
        train_run(place, "later", train__init="earlier")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_early_stopping_publishes_the_best_model(place, strategy):
    run, stats = train_run(
        place, strategy, train__strategy=strategy, train__learning_rate=0.2, train__schedule="constant",
        train__epochs=10, train__max_tokens=400 * 12 * 16, train__early_stopping_evals=3,
    )  # fmt: skip
    rows = [row for row in metrics(run) if "valid_loss" in row]
    best = min(rows, key=lambda row: row["valid_loss"])
    assert stats["stopped_early"]
    assert [row["step"] for row in rows][-1] == best["step"] + 3 * 4 == stats["num_steps"] == latest_checkpoint(run)
    assert stats["num_steps"] < 400
    assert stats["valid_loss"] == best["valid_loss"]


def test_early_stopping_counts_validations_by_steps(place):
    _, config = make_run(place, train__early_stopping_evals=2, train__eval_every=10)
    schedule = Schedule.of(config.train, 1000, 16)
    state = TrainingState("", steps=25, best_step=10, best_valid_loss=1.0)
    assert not state.has_stopped_improving(schedule)
    state.steps = 30
    assert state.has_stopped_improving(schedule)
    without = config.train.model_copy(update={"early_stopping_evals": None})
    assert not state.has_stopped_improving(Schedule.of(without, 1000, 16))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_validation_for_each_epoch_is_a_row_with_its_seconds(place, strategy):
    run, _ = train_run(
        place, strategy, train__strategy=strategy, train__epochs=3, train__max_tokens=None, train__eval_every="epoch",
        train__sync_every="epoch",
    )  # fmt: skip
    rows = list(evaluation_rows(read_parts(run)))
    assert [math.floor(row["epoch"]) for row in rows] == [1, 2, 3]
    assert all(row["epoch"] % 1 < 12 / 190 for row in rows)
    seconds = [0.0, *(row["seconds"] for row in rows)]
    assert [row["interval_seconds"] for row in rows] == [after - before for before, after in pairwise(seconds)]
    assert all(row["interval_seconds"] > 0 for row in rows)
