"""Training in rounds on a small text: parameter averaging and DiLoCo."""

from contextlib import suppress

import pytest
import torch
from safetensors.torch import load

from jobs.engine.inline import InlineEngine
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import local_path
from jobs.metrics.columns import QUALITY
from jobs.steps import train
from jobs.training.checkpoint import complete_checkpoints
from jobs.training.job import TrainingData, TrainingJob
from jobs.training.learner import Learner
from jobs.training.local_sgd import driver, task
from jobs.training.order import SampleOrder
from jobs.training.schedule import Schedule
from jobs.training.warm_start import initial_model
from tests.support.handmade import FINGERPRINT, make_datasets, make_run, metrics, pay_by_the_second

pytestmark = pytest.mark.slow

FEW = {"train__max_tokens": 24 * 12 * 16, "train__batch_size": 12, "train__eval_every": 8, "train__sync_every": 6,
       "train__learning_rate": 3e-3, "spark__executors": 3}  # fmt: skip


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Give the test a local disk of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def train_run(place, name, **settings):
    run, config = make_run(place, name, **{**FEW, **settings})
    return run, config, train.run(run, config, InlineEngine(), lambda _: None)


def weights(run, step):
    return load(store.read_bytes(run.checkpoint(step) + "/model.safetensors"))


def max_difference(one, other):
    """Return the largest difference between the weights of two models."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_averaging_with_one_worker_equals_plain_training(place):
    whole, _, plain = train_run(place, "plain")
    run, _, stats = train_run(place, "rounds", train__strategy="average")
    assert max_difference(weights(whole, 24), weights(run, 24)) < 1e-5
    assert stats["valid_loss"] == pytest.approx(plain["valid_loss"], abs=1e-5)
    for one, other in zip(metrics(whole), metrics(run), strict=True):
        for key in ("step", "epoch", "tokens", "samples", "unigram_loss", "learning_rate"):
            assert other[key] == one[key], key
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
        assert other.keys() >= one.keys() - set(QUALITY)
    assert [row["step"] for row in metrics(run) if "valid_loss" in row] == [12, 18, 24]
    assert stats.keys() == plain.keys()


def by_hand(run, config, num_rounds, *, outer_rate, momentum):
    """Return the weights after rounds of two workers, computed step by step: AdamW, then Nesterov SGD as outer step."""
    data = TrainingData.open(Lake(run.lake_uri), FINGERPRINT)
    order = SampleOrder(data.train.windows_per_shard, config.train.seed)
    schedule = Schedule.of(config.train, data.train.num_windows, data.train.size)
    learners = [
        Learner(initial_model(TrainingJob(run, config, FINGERPRINT), data.shape), config.train, torch.device("cpu"))
        for _ in "ab"
    ]
    shared = {name: tensor.clone() for name, tensor in learners[0].model.state_dict().items()}
    speed = {name: torch.zeros_like(tensor) for name, tensor in shared.items()}
    for step in range(6 * num_rounds):
        ids = order.take(step * 12, (step + 1) * 12)
        for rank, learner in enumerate(learners):
            learner.backward(torch.from_numpy(data.train.read(ids[6 * rank : 6 * rank + 6])), 6 * 16)
            learner.update(schedule.learning_rate(step, 0))
        if step % 6 == 5:
            for name, tensor in shared.items():
                change = tensor - sum(learner.model.state_dict()[name] for learner in learners) / 2
                speed[name] = momentum * speed[name] + change
                tensor.sub_(outer_rate * (change + momentum * speed[name]))
            for learner in learners:
                learner.model.load_state_dict(shared)
    return shared


@pytest.mark.parametrize(
    ("strategy", "outer"),
    [("average", {"outer_rate": 1, "momentum": 0}), ("diloco", {"outer_rate": 0.5, "momentum": 0.8})],
)
def test_two_workers_follow_the_definition(place, strategy, outer):
    run, config, _ = train_run(
        place, strategy, train__strategy=strategy, train__workers=2, train__outer_learning_rate=0.5,
        train__outer_momentum=0.8,
    )  # fmt: skip
    assert max_difference(weights(run, 24), by_hand(run, config, 4, **outer)) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["average", "diloco"])
def test_samples_do_not_depend_on_the_number_of_workers_which_may_change(place, strategy, monkeypatch):
    rows = []
    for workers in (1, 2, 3):
        run, _, stats = train_run(place, f"{workers}", train__strategy=strategy, train__workers=workers)
        rows.append(metrics(run))
        assert rows[-1][-1]["loss"] < rows[-1][0]["loss"] - 0.5
    for workers, until in ((2, 12), (1, 18), (3, 24)):
        run, config = make_run(place, "changing", **FEW, train__strategy=strategy, train__workers=workers)
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            stop_after(patch, until)
            stats = train.run(run, config, InlineEngine(), lambda _: None)
    rows.append(metrics(run))
    for others in rows[1:]:
        assert [row["samples"] for row in others] == [row["samples"] for row in rows[0]]
        assert [row["step"] for row in others] == list(range(1, 25))
    assert stats["states_lost"] == 0  # the third worker takes the optimizer state of another


def stop_after(monkeypatch, step):
    """Interrupt the driver before it writes the checkpoint of `step`."""
    write = driver.Checkpoints.write

    def killed(self, state, *others):
        if state.steps == step < 24:
            raise KeyboardInterrupt
        write(self, state, *others)

    monkeypatch.setattr(driver.Checkpoints, "write", killed)


def test_a_driver_that_was_interrupted_repeats_one_round(place, monkeypatch):
    settings = {"train__strategy": "diloco", "train__workers": 2}
    whole, _, expected = train_run(place, "whole", **settings)
    run, config = make_run(place, "killed", **FEW, **settings)
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        stop_after(patch, 12)
        train.run(run, config, InlineEngine(), lambda _: None)
    assert store.read_manifest(run.train) is None
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert max_difference(weights(whole, 24), weights(run, 24)) < 1e-5
    assert [(row["step"], row.get("valid_loss")) for row in metrics(run)] == [
        (row["step"], pytest.approx(row["valid_loss"], abs=1e-5) if "valid_loss" in row else None)
        for row in metrics(whole)
    ]
    assert stats["best_step"] == expected["best_step"]
    assert store.list_files(run.rounds) == []


class TwiceEngine(InlineEngine):
    """An engine that runs each task of a round twice; the first attempt commits after the second."""

    def map(self, function, items, description):
        if function.func is not task.train_part:
            return super().map(function, items, description)
        late = []
        publish = store.publish_manifest
        store.publish_manifest = lambda folder, manifest: late.append((folder, manifest))
        try:
            super().map(function, items, description)
        finally:
            store.publish_manifest = publish
        results = super().map(function, items, description)
        assert len(late) == len(items)
        assert [publish(*each) for each in late] == [False] * len(late)
        return results


def test_one_of_two_attempts_of_a_task_counts(place):
    settings = {"train__strategy": "average", "train__workers": 2, "train__state_every": 2}
    once, config, _ = train_run(place, "once", **settings)
    twice, _ = make_run(place, "twice", **FEW, **settings)
    train.run(twice, config, TwiceEngine(), lambda _: None)
    assert max_difference(weights(once, 24), weights(twice, 24)) == 0
    assert [row["loss"] for row in metrics(once)] == [row["loss"] for row in metrics(twice)]


def test_a_lost_optimizer_state_is_restored_from_its_copy(place, tmp_path, monkeypatch):
    settings = {"train__strategy": "average", "train__workers": 2, "train__state_every": 1}
    once, _, kept = train_run(place, "kept", **settings)
    assert kept["states_lost"] == 0
    monkeypatch.setattr(task.OptimizerCache, "read", lambda *_: None)
    copied, _, stats = train_run(place, "copied", **settings)
    assert stats["states_lost"] == 3 * 2
    assert max_difference(weights(once, 24), weights(copied, 24)) == 0
    fresh, _, stats = train_run(place, "fresh", **(settings | {"train__state_every": 1000}))
    assert stats["states_lost"] == 3 * 2
    assert max_difference(weights(once, 24), weights(fresh, 24)) > 1e-4
    assert stats["valid_loss"] == pytest.approx(kept["valid_loss"], rel=0.05)


@pytest.mark.long
def test_sync_bytes_of_each_delta_dtype(place):
    size = len(
        store.read_bytes(train_run(place, "one", train__strategy="average")[0].checkpoint(24) + "/model.safetensors")
    )
    for dtype, share in (("float32", 1), ("bfloat16", 0.5), ("int8", 0.3)):
        run, _, stats = train_run(place, dtype, train__strategy="average", train__workers=3, train__delta_dtype=dtype)
        each_round = [row["sync_bytes"] for row in metrics(run) if row["sync_bytes"]]
        assert len(each_round) == 4
        assert each_round[0] == pytest.approx((2 * 3 * share + 3 + 1) * size, rel=0.05)
        assert stats["sync_bytes"] == sum(each_round)


def test_rounds_follow_an_allreduce_warm_up(place):
    settings = {"train__strategy": "diloco", "train__workers": 2, "train__allreduce_steps": 9}
    whole, _, _ = train_run(place, "plain")
    run, _, stats = train_run(place, "warm", **settings, train__keep_checkpoints=9)
    assert complete_checkpoints(run)[-4:] == [9, 15, 21, 24]
    assert [row["samples"] for row in metrics(run)] == [row["samples"] for row in metrics(whole)]
    size = len(store.read_bytes(run.checkpoint(24) + "/model.safetensors"))
    for row, plain in zip(metrics(run)[:9], metrics(whole)[:9], strict=True):
        assert row["loss"] == pytest.approx(plain["loss"], abs=1e-4)
        assert row["sync_bytes"] == pytest.approx(
            2 * size, rel=0.05
        )  # each of the two workers sends all gradients once
    assert stats["states_lost"] == 0
    assert metrics(run)[-1]["loss"] < metrics(run)[9]["loss"]


def test_the_peak_of_memory_is_that_of_all_rounds(place, monkeypatch):
    peaks = iter(range(10**12, 0, -1))  # a worker of a later round may be a new process
    monkeypatch.setattr(task, "peak_resident_bytes", lambda: next(peaks))
    _, _, stats = train_run(place, "rounds", train__strategy="average")
    assert next(peaks) < 10**12 - 2
    assert stats["peak_resident_bytes"] == 10**12


def test_max_seconds_ends_the_rounds(place):
    settings = {"train__max_tokens": None, "train__epochs": 10_000, "train__max_seconds": 3}
    _, _, stats = train_run(place, "timed", train__strategy="average", **settings)
    assert 3 <= stats["training_seconds"] < 60
    assert (stats["stopped_by_time"], stats["stopped_by_budget"]) == (True, False)


def test_the_budget_ends_the_rounds(place):
    run, config = make_run(place, "paid", train__strategy="average", train__epochs=10_000, train__max_tokens=None,
                           budget__usd=64)  # fmt: skip
    pay_by_the_second(run, 60)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert 1 < stats["training_seconds"] < 60
    assert (stats["stopped_by_time"], stats["stopped_by_budget"]) == (False, True)
    assert store.read_manifest(run.model) is not None


def test_a_round_for_each_epoch(place):
    run, _, _ = train_run(place, "epochs", train__strategy="average", train__sync_every=0, train__max_tokens=None,
                          train__epochs=2, train__keep_checkpoints=9)  # fmt: skip
    windows = store.read_manifest(place.dataset("windows", FINGERPRINT)).counts["num_train_windows"]
    assert complete_checkpoints(run) == [0, -(-windows // 12), -(-2 * windows // 12)]


def test_other_settings_do_not_resume(place):
    run, _, _ = train_run(place, "r", train__strategy="average")
    (local_path(run.train) / "_manifest.json").unlink()
    _, other = make_run(place, "r", **FEW, train__strategy="diloco")
    with pytest.raises(InputError, match="another configuration or other data"):
        train.run(run, other, InlineEngine(), lambda _: None)


@pytest.mark.long
def test_rounds_on_s3_give_the_same_weights(s3_uri, tokenizer, place):
    local, _, _ = train_run(place, "local", train__strategy="diloco", train__workers=2)
    remote = Lake(s3_uri)
    make_datasets(remote, tokenizer)
    run, _, _ = train_run(remote, "remote", train__strategy="diloco", train__workers=2)
    assert max_difference(weights(local, 24), weights(run, 24)) == 0
    assert store.list_files(run.rounds) == []
