"""Training under faults: real processes are stopped, asked to shut down and killed."""

import math
import os
import random
import signal
import threading
import time
from itertools import pairwise
from statistics import mean

import pytest
import torch
from safetensors.torch import load

from jobs.engine.inline import InlineEngine
from jobs.errors import DivergedError, StoppedError
from jobs.lake import store
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.uri import local_path
from jobs.steps import train
from jobs.training import step as training_step
from jobs.training.checkpoint import complete_checkpoints
from tests.support.handmade import TEXT, make_datasets, make_run, metrics
from tests.support.processes import inline_workers

pytestmark = pytest.mark.slow

SETTINGS = {"train__workers": 2, "train__epochs": 6, "train__checkpoint_every": 10, "train__eval_every": 500,
            "train__keep_checkpoints": 99}  # fmt: skip
TIMEOUT_SECONDS = 20  # a worker's first step takes seconds on a busy machine


def disturbed(run, config, disturb, num_checkpoints=0):
    """Train, and call `disturb` once there are more than `num_checkpoints`; return statistics and messages."""
    messages = []

    def wait():
        while len(complete_checkpoints(run)) <= num_checkpoints:
            time.sleep(0.02)
        disturb()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        return train.run(run, config, InlineEngine(), messages.append), messages
    finally:
        thread.join()


def model(run):
    return load(store.read_bytes(f"{run.model}/model.safetensors"))


def same_model(one, other):
    one, other = model(one), model(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tokenizer):
    place = Lake(tmp_path_factory.mktemp("undisturbed").as_uri())
    make_datasets(place, tokenizer)
    run, config = make_run(place, **SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        train.run(run, config, InlineEngine(), lambda _: None)
    return run


@pytest.mark.long
def test_a_stopped_worker_is_killed_at_the_deadline_and_its_stack_is_logged(place, undisturbed, caplog):
    run, config = make_run(place, train__step_timeout_seconds=TIMEOUT_SECONDS, **SETTINGS)
    stopped = []

    def stop():
        stopped.append(time.time())
        inline_workers()[1].send_signal(signal.SIGSTOP)

    stats, _ = disturbed(run, config, stop)
    assert stats["restarts"] == 1
    report = next(record for record in caplog.records if "worker 1 hangs" in record.getMessage())
    assert report.created - stopped[0] < TIMEOUT_SECONDS + 5
    report = report.getMessage()
    assert f"no progress for {TIMEOUT_SECONDS} s since" in report
    assert ", stopped by a signal)" in report
    assert 'training/worker.py", line' in report
    assert same_model(run, undisturbed)


@pytest.mark.long
def test_a_worker_that_receives_sigterm_writes_a_checkpoint_first(place, undisturbed):
    run, config = make_run(place, **SETTINGS)
    stats, messages = disturbed(run, config, lambda: inline_workers()[1].send_signal(signal.SIGTERM))
    assert stats["restarts"] == 1
    (step,) = [int(text.split("from step ")[1].split()[0]) for text in messages if "resuming" in text]
    assert [row["step"] for row in metrics(run)] == list(range(1, stats["num_steps"] + 1))
    first_rows = [name for name in store.list_files(run.metrics_parts) if "part-0001" in name.uri]
    assert store.read_bytes(first_rows[0].uri).startswith(f'{{"step": {step + 1},'.encode())
    assert same_model(run, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_driver_that_receives_sigterm_stops_with_a_checkpoint_and_resumes_later(place, num_workers):
    settings = SETTINGS | {"train__workers": num_workers, "train__epochs": 20, "train__checkpoint_every": 100}
    run, config = make_run(place, **settings)
    with pytest.raises(StoppedError, match=r"received SIGTERM and stopped after step \d+, whose checkpoint"):
        disturbed(run, config, lambda: os.kill(os.getpid(), signal.SIGTERM))
    step = complete_checkpoints(run)[-1]
    assert not store.exists(run.stop)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert stats["restarts"] == 0
    assert stats["num_steps"] > step
    assert [row["step"] for row in metrics(run)] == list(range(1, stats["num_steps"] + 1))


def test_the_model_of_a_run_that_gets_worse_is_its_best_step(tmp_path, tokenizer):
    place = Lake(tmp_path.as_uri())
    make_datasets(place, tokenizer, TEXT[:6000] + "".join(random.Random(0).choices("qxzj", k=500)))
    settings = {"train__eval_every": 2, "train__checkpoint_every": 9, "train__keep_checkpoints": 1}
    run, config = make_run(place, train__epochs=10, train__learning_rate=0.02, **settings)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    rows = {row["step"]: row["valid_loss"] for row in metrics(run) if "valid_loss" in row}
    best = min(rows, key=rows.get)
    assert best < stats["num_steps"]
    assert complete_checkpoints(run) == [best, stats["num_steps"]]
    assert stats["valid_loss"] == stats["best_valid_loss"] == rows[best]
    weights = load(store.read_bytes(f"{run.checkpoint(best)}/model.safetensors"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in model(run).items())


def test_checkpoints_are_written_by_seconds(place):
    settings = {"train__epochs": 4, "train__checkpoint_every": 10_000, "train__keep_checkpoints": 99}
    run, config = make_run(place, train__checkpoint_seconds=0.05, **settings)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    *steps, last = complete_checkpoints(run)
    assert len(steps) > 3
    assert last == stats["num_steps"]
    written = [(local_path(run.checkpoint(step)) / MANIFEST).stat().st_mtime for step in steps]
    assert all(later - earlier > 0.04 for earlier, later in pairwise(written))


def test_a_batch_that_diverges_is_left_out_after_a_rollback(place, monkeypatch, caplog):
    settings = {"train__epochs": 2, "train__checkpoint_every": 5, "train__on_divergence": "rollback"}
    whole, config = make_run(place, "whole", **settings)
    train.run(whole, config, InlineEngine(), lambda _: None)
    order = [row["samples"] for row in metrics(whole)]
    poison(monkeypatch, order[12])
    run, config = make_run(place, **settings)
    messages = []
    stats = train.run(run, config, InlineEngine(), messages.append)
    assert "training diverged at step 13; back to step 10, without that batch (rollback 1 of 3)" in messages
    assert "training windows" in caplog.text
    assert stats["rollbacks"] == 1
    assert [row["samples"] for row in metrics(run)][:-1] == order[:12] + order[13:]
    stopped, config = make_run(place, "stopped", **settings | {"train__max_rollbacks": 0})
    with pytest.raises(DivergedError, match="diverged at step 13"):
        train.run(stopped, config, InlineEngine(), lambda _: None)


def poison(monkeypatch, checksum):
    """Make the loss of one batch infinite; `checksum` is that of its windows."""
    original = training_step.check_loss

    def check(loss, norm, step, ids, *more):
        original(math.inf if training_step.samples_checksum(ids) == checksum else loss, norm, step, ids, *more)

    monkeypatch.setattr(training_step, "check_loss", check)


def test_a_loss_that_rises_too_far_is_an_error(place):
    settings = {"train__max_loss_rise": 0.5, "train__learning_rate": 3, "train__warmup_steps": 0}
    run, config = make_run(place, **settings)
    with pytest.raises(DivergedError, match=r"diverged at step \d+: loss \d"):
        train.run(run, config, InlineEngine(), lambda _: None)


@pytest.mark.long
def test_the_number_of_workers_may_change_when_a_run_resumes(place):
    settings = SETTINGS | {"train__epochs": 20}  # long enough for a signal to arrive, which takes seconds
    expected = make_run(place, "undisturbed", **settings)
    train.run(*expected, InlineEngine(), lambda _: None)
    run, config = make_run(place, spark__executors=3, **settings)
    resumed_from = []
    for workers in (2, 3, 1):
        config = config.model_copy(update={"train": config.train.model_copy(update={"workers": workers})})
        if workers > 1:
            with pytest.raises(StoppedError):
                disturbed(run, config, lambda: os.kill(os.getpid(), signal.SIGTERM), len(complete_checkpoints(run)))
            resumed_from.append(complete_checkpoints(run)[-1])
    train.run(run, config, InlineEngine(), lambda _: None)
    ours, theirs = metrics(run), metrics(expected[0])
    assert [row["samples"] for row in ours] == [row["samples"] for row in theirs]
    ours, theirs = ([row["loss"] for row in rows] for rows in (ours, theirs))
    first = resumed_from[0]
    assert ours[: first + 8] == pytest.approx(theirs[: first + 8], abs=1e-3)
    # Early in the training, a difference of rounding doubles at each step. Other samples differ by more.
    rounding = mean(abs(our - their) for our, their in zip(ours, theirs, strict=True))
    assert rounding < mean(abs(our - their) for our, their in zip(ours[1:], theirs, strict=False)) / 2
