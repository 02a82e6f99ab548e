"""The train step on a small text, with real processes."""

import json
import os
import threading
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load

from jobs.engine.inline import InlineEngine
from jobs.errors import DamagedError, InputError, NightjarError, WorkerLostError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, local_path
from jobs.results.rows import read_parts
from jobs.steps import train
from jobs.training.checkpoint import complete_checkpoints, latest_checkpoint
from jobs.training.job import TrainingJob
from jobs.training.schedule import Schedule
from jobs.training.worker import train_worker
from tests.support.handmade import FINGERPRINT, make_datasets, make_run, metrics, pay_by_the_second
from tests.support.processes import inline_workers

pytestmark = pytest.mark.slow

STATS = {
    "train_loss", "valid_loss", "unigram_loss", "valid_accuracy", "perplexity", "bits_per_byte", "tokens_per_second",
    "num_parameters", "num_steps", "num_tokens", "epochs", "learning_rate", "gradient_norm_mean", "gradient_norm_max",
    "seconds_per_step", "seconds_per_epoch", "peak_resident_bytes", "cpu_load", "restarts", "dtype", "workers",
}  # fmt: skip


def train_run(place, name="r", progress=lambda _: None, **settings):
    run, config = make_run(place, name, **settings)
    return run, config, train.run(run, config, InlineEngine(), progress)


def weights(run, step):
    return load(store.read_bytes(run.checkpoint(step) + "/model.safetensors"))


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_losses_do_not_depend_on_the_number_of_workers(place):
    rows = []
    settings = {"train__batch_size": 16, "train__epochs": 1.3, "train__eval_every": 10, "train__learning_rate": 3e-3}
    for workers in (1, 2, 3):
        run, _, stats = train_run(place, f"{workers}", train__workers=workers, spark__executors=3, **settings)
        rows.append(metrics(run))
        assert stats.keys() >= STATS
        assert stats["workers"] == workers
    assert len(rows[0]) >= 30
    for workers, others in enumerate(rows[1:], start=2):
        for one, other in zip(rows[0], others, strict=True):
            assert other["samples"] == one["samples"]
            assert other["sync_bytes"] == 2 * (workers - 1) * (4 * stats["num_parameters"] + 12)
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
            assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=2e-2)
            assert other.get("valid_loss") == pytest.approx(one.get("valid_loss"), abs=1e-4)
            assert other.get("valid_accuracy") == pytest.approx(one.get("valid_accuracy"), abs=1e-2)


def test_the_metrics_of_a_run(place):
    run, config, stats = train_run(place, train__epochs=10, train__eval_every=20)
    rows = metrics(run)
    windows = store.read_manifest(place.dataset("windows", FINGERPRINT)).counts["num_train_windows"]
    schedule = Schedule.of(config.train, windows, 16)
    assert [row["step"] for row in rows] == list(range(1, schedule.total_steps + 1))
    assert rows[-1]["epoch"] == pytest.approx(10, abs=32 / windows)
    assert stats["valid_loss"] < stats["unigram_loss"] - 0.5
    assert [row["step"] for row in rows if "valid_loss" in row][:2] == [20, 40]
    assert "valid_loss" in rows[-1]
    for row in rows:
        assert row["tokens"] == row["step"] * 32 * 16
        assert row["learning_rate"] == schedule.learning_rate(row["step"] - 1, row["seconds"])
        assert 0 < row["sync_milliseconds"] < row["step_milliseconds"]
        assert row["resident_bytes"] > 10**7
        assert row["cpu_load"] > 0
        assert (row["gpu_bytes"] > 0, row["sync_bytes"]) == (torch.cuda.is_available(), 0)
        norms = row["gradient_norms"]
        assert norms.keys() == {"matrices", "vectors"}
        assert all(0 < norm["mean"] <= norm["max"] < row["gradient_norm"] for norm in norms.values())
    assert len({row["learning_rate"] for row in rows}) == len(rows)
    progress = store.read_json(run.progress("train"))
    assert progress["total_steps"] == schedule.total_steps
    assert progress["message"].startswith(f"step {progress['step']}/{schedule.total_steps}  loss ")
    again = train.run(run, config, None, lambda _: None)  # no engine: nothing is trained
    assert again == stats | {"reused": True}


def test_bfloat16_reaches_about_the_same_loss(place):
    _, _, exact = train_run(place, "float32", train__epochs=3)
    _, _, rounded = train_run(place, "bfloat16", train__epochs=3, train__dtype="bfloat16")
    assert rounded["dtype"] == "bfloat16"
    assert rounded["valid_loss"] == pytest.approx(exact["valid_loss"], abs=0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_the_weights_of_a_resumed_run_are_bitwise_those_of_an_undisturbed_one(place, optimizer):
    settings = {
        "train__optimizer": optimizer,
        "train__epochs": 2,
        "train__checkpoint_every": 8,
        "train__keep_checkpoints": 9,
    }
    whole, config, _ = train_run(place, "whole", **settings)
    last = complete_checkpoints(whole)[-1]
    resumed, _ = make_run(place, "resumed", **settings)
    folder = local_path(resumed.checkpoint(16))
    folder.parent.mkdir(parents=True)
    folder.symlink_to(local_path(whole.checkpoint(16)))
    stats = train.run(resumed, config, InlineEngine(), lambda _: None)
    assert metrics(resumed)[0]["step"] == 17
    assert stats["num_steps"] == last
    assert same_weights(weights(whole, last), weights(resumed, last))


@pytest.mark.long
def test_training_resumes_from_the_last_checkpoint_after_a_worker_was_killed(place):
    settings = {"train__workers": 2, "train__epochs": 8, "train__checkpoint_every": 10, "train__eval_every": 200}
    run, config = make_run(place, "killed", **settings)
    messages = []

    def kill_one_after_a_checkpoint():
        while not complete_checkpoints(run):
            time.sleep(0.02)
        inline_workers()[-1].kill()

    killer = threading.Thread(target=kill_one_after_a_checkpoint)
    killer.start()
    stats = train.run(run, config, InlineEngine(), messages.append)
    killer.join()
    undisturbed, _, expected = train_run(place, "undisturbed", **settings)
    assert stats["restarts"] == 1
    assert "a worker was lost; resuming from step" in messages[0]
    assert [row["samples"] for row in metrics(run)] == [row["samples"] for row in metrics(undisturbed)]
    assert [row["step"] for row in metrics(run)] == list(range(1, expected["num_steps"] + 1))
    assert same_weights(weights(run, expected["num_steps"]), weights(undisturbed, expected["num_steps"]))


def test_a_run_ends_after_max_restarts(place):
    run, config = make_run(place, train__max_restarts=2)

    class LosingEngine(InlineEngine):
        attempts = 0

        def run_worker_group(self, function, workers, description):
            self.attempts += 1
            raise WorkerLostError("worker 1 exited without an error message")

    engine = LosingEngine()
    with pytest.raises(
        WorkerLostError, match=r"lost 3 times.*max_restarts \(2\).*worker 1 exited without an error message"
    ):
        train.run(run, config, engine, lambda _: None)
    assert engine.attempts == 3
    assert store.read_manifest(run.train) is None


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_windows(place):
    run, config = make_run(place, train__learning_rate=1e38, train__warmup_steps=0)
    with pytest.raises(NightjarError, match=r"diverged at step \d+: loss .*windows \d+, .*train.learning_rate"):
        train.run(run, config, InlineEngine(), lambda _: None)
    assert store.read_manifest(run.train) is None
    assert store.read_manifest(run.model) is None


def test_max_seconds_ends_a_run_with_a_model(place):
    run, config, stats = train_run(place, train__epochs=10_000, train__max_tokens=None, train__max_seconds=3)
    rows = metrics(run)
    assert (stats["training_seconds"] >= 3, stats["stopped_by_time"], stats["stopped_by_budget"]) == (True, True, False)
    assert rows[-1]["loss"] < rows[0]["loss"]
    rates = [row["learning_rate"] for row in rows]
    decay = rates[rates.index(max(rates)) :]
    assert len(decay) > 2
    assert decay == sorted(decay, reverse=True)
    assert decay[-1] == pytest.approx(0.1 * config.train.learning_rate)  # its clock is beyond the limit
    assert store.read_manifest(run.model) is not None


def test_the_budget_ends_a_run_with_a_model(place):
    run, config = make_run(place, train__epochs=10_000, train__max_tokens=None, budget__usd=60 + 5)
    pay_by_the_second(run, 60)
    started = time.monotonic()
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert 1 < stats["training_seconds"] < 5
    assert time.monotonic() - started < 120
    assert stats["stopped_by_budget"]
    rows = metrics(run)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert "valid_loss" in rows[-1]
    assert rows[-1]["learning_rate"] == pytest.approx(0.1 * config.train.learning_rate, rel=0.2)
    assert store.read_manifest(run.model) is not None


def test_a_budget_that_is_enough_changes_nothing(place):
    _, _, plain = train_run(place, "plain", train__epochs=1)
    run, config = make_run(place, "rich", train__epochs=1, budget__usd=1e6)
    pay_by_the_second(run, 60)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert (stats["stopped_by_budget"], stats["stopped_by_time"]) == (False, False)
    assert (stats["num_steps"], stats["valid_loss"]) == (
        plain["num_steps"],
        pytest.approx(plain["valid_loss"], rel=0.05),
    )


def test_without_money_training_does_not_start_but_one_that_has_started_ends_with_a_model(place):
    run, config = make_run(place, train__epochs=10_000, train__max_tokens=20 * 32 * 16, budget__usd=50)
    pay_by_the_second(run, 60)
    with pytest.raises(InputError, match=r"the budget leaves nothing for training \(budget\.usd=50\)"):
        train.run(run, config, InlineEngine(), lambda _: None)
    assert latest_checkpoint(run) is None
    whole, _, _ = train_run(place, "whole", train__epochs=10_000, train__max_tokens=20 * 32 * 16,
                            train__checkpoint_every=8, train__keep_checkpoints=9)  # fmt: skip
    folder = local_path(run.checkpoint(16))
    folder.parent.mkdir(parents=True)
    folder.symlink_to(local_path(whole.checkpoint(16)))
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert (stats["num_steps"], stats["stopped_by_budget"]) == (17, True)
    assert store.read_manifest(run.model) is not None


def test_a_run_on_s3_resumes(s3_uri, tokenizer, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    place = Lake(s3_uri)
    make_datasets(place, tokenizer)
    run, config, stats = train_run(place, train__epochs=2, train__checkpoint_every=8)
    last = stats["num_steps"]
    expected = weights(run, last)
    assert complete_checkpoints(run) == [(last - 1) // 8 * 8, last]
    store.delete_folder(run.checkpoint(last))
    store.delete_file(join(run.train, "_manifest.json"))
    assert train.run(run, config, InlineEngine(), lambda _: None)["num_steps"] == last
    assert same_weights(weights(run, last), expected)
    assert [row["step"] for row in metrics(run)] == list(range(1, last + 1))


def test_max_tokens_ends_a_run(place):
    _, _, stats = train_run(place, train__max_tokens=1500)
    assert stats["num_tokens"] == 1536


def test_damaged_checkpoints_are_skipped(place, caplog):
    settings = {"train__epochs": 2, "train__checkpoint_every": 8, "train__keep_checkpoints": 3}
    run, config, _ = train_run(place, **settings)
    kept = complete_checkpoints(run)
    expected = weights(run, kept[-1])
    weights_file = local_path(run.checkpoint(kept[-1])) / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-100])
    (local_path(run.checkpoint(kept[-2])) / "optimizer.safetensors").unlink()
    store.delete_folder(run.model)
    (local_path(run.train) / "_manifest.json").unlink()
    train.run(run, config, InlineEngine(), lambda _: None)
    assert f"checkpoint of step {kept[-1]} is damaged" in caplog.text
    assert f"checkpoint of step {kept[-2]} is damaged" in caplog.text
    assert len(kept) == 3
    assert same_weights(weights(run, kept[-1]), expected)
    steps = [row["step"] for row in metrics(run)]
    assert steps == list(range(1, kept[-1] + 1))


def test_a_checkpoint_without_its_manifest_does_not_exist(place):
    run, _, stats = train_run(place, train__checkpoint_every=4)
    (local_path(run.checkpoint(stats["num_steps"])) / "_manifest.json").unlink()
    assert latest_checkpoint(run) == (stats["num_steps"] - 1) // 4 * 4


def test_other_settings_do_not_resume(place):
    run, config, _ = train_run(place)
    (local_path(run.train) / "_manifest.json").unlink()
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 99})})
    with pytest.raises(InputError, match="another configuration or other data; use a new run id"):
        train.run(run, other, InlineEngine(), lambda _: None)


def test_an_altered_model_of_a_finished_training_is_an_error(place):
    run, config, _ = train_run(place)
    (local_path(run.model) / "config.json").write_text("{}")
    with pytest.raises(DamagedError, match="has 2 bytes, the manifest says"):
        train.run(run, config, InlineEngine(), lambda _: None)


def test_without_windows_the_error_names_the_steps_to_run(place):
    run, config = make_run(place)
    local_path(run.datasets).unlink()
    with pytest.raises(InputError, match="no windows dataset yet; run the tokenize and windows steps first"):
        train.run(run, config, InlineEngine(), lambda _: None)


def test_metrics_after_the_resumed_step_are_those_of_the_last_attempt(place):
    run, _ = make_run(place)
    parts = {"part-0000-aa-000000": [1, 2, 3], "part-0000-aa-000001": [4, 5, 6], "part-0001-bb-000000": [4]}
    for name, steps in parts.items():
        lines = [json.dumps({"step": step, "attempt": name[5:9]}) + "\n" for step in steps]
        store.write_bytes(f"{run.metrics_parts}/{name}.jsonl", "".join(lines).encode())
    found = [(row["step"], row["attempt"]) for row in read_parts(run)]
    assert found == [(1, "0000"), (2, "0000"), (3, "0000"), (4, "0001")]


def test_a_worker_process_can_train_twice_and_max_seconds_ends_all_workers_at_the_same_step(place):
    run, config = make_run(place, train__workers=2, train__epochs=10_000, train__max_seconds=1)
    result = InlineEngine().run_worker_group(partial(_train_twice, run=run, config=config), 2, "twice")
    assert result.num_parameters > 0
    seconds = [row["seconds"] for row in read_parts(run)]
    assert [each >= 1 for each in seconds] == [False] * (len(seconds) - 1) + [True]
    assert latest_checkpoint(run) == len(seconds)


def _train_twice(context, run, config):
    """Train twice in the same process, as Spark does; delete the first training in between."""
    train_worker(context, TrainingJob(run, config, FINGERPRINT))
    if context.rank == 0:
        store.delete_folder(run.train)
    context.all_gather("deleted")
    return train_worker(context, TrainingJob(run, config, FINGERPRINT))
