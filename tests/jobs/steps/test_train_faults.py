"""What training does when it is disturbed: real processes are stopped, told to end and killed."""

import os
import random
import signal
import threading
import time

import psutil
import pytest
import torch
from safetensors.torch import load

from jobs import lake
from jobs.engine.inline import InlineEngine
from jobs.errors import StoppedError
from jobs.paths import Lake
from jobs.steps import train
from jobs.training.checkpoint import complete_checkpoints
from tests.jobs.handmade import TEXT, make_datasets, make_run, metrics

SETTINGS = {"train__workers": 2, "train__epochs": 6, "train__checkpoint_every": 10, "train__eval_every": 500}
TIMEOUT_SECONDS = 15  # the first step imports a lot, which takes seconds on a busy machine


def workers():
    """The processes of the gang, by rank."""
    children = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    return sorted(children, key=lambda child: child.pid)


def disturbed(run, config, disturb):
    """Train; call `disturb` as soon as there is a checkpoint. Return the statistics and what was told."""
    told = []

    def wait():
        while not complete_checkpoints(run):
            time.sleep(0.02)
        disturb()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        return train.run(run, config, InlineEngine(), told.append), told
    finally:
        thread.join()


def model(run):
    return load(lake.read_bytes(f"{run.model}/model.safetensors"))


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


def test_a_stopped_worker_is_ended_within_the_deadline_and_its_stack_is_told(place, undisturbed, caplog):
    run, config = make_run(place, train__step_timeout_seconds=TIMEOUT_SECONDS, **SETTINGS)
    stopped = []

    def stop():
        stopped.append(time.time())
        workers()[1].send_signal(signal.SIGSTOP)

    stats, _ = disturbed(run, config, stop)
    assert stats["restarts"] == 1
    report = next(record for record in caplog.records if "worker 1 hangs" in record.getMessage())
    assert report.created - stopped[0] < TIMEOUT_SECONDS + 5
    report = report.getMessage()
    assert f"nothing for {TIMEOUT_SECONDS} s since" in report
    assert ", stopped by a signal)" in report
    assert 'loop.py", line' in report
    assert same_model(run, undisturbed)


def test_a_worker_that_is_told_to_end_writes_a_checkpoint_first(place, undisturbed):
    run, config = make_run(place, **SETTINGS)
    stats, told = disturbed(run, config, lambda: workers()[1].send_signal(signal.SIGTERM))
    assert stats["restarts"] == 1
    (step,) = [int(text.split("from step ")[1].split()[0]) for text in told if "resuming" in text]
    assert [row["step"] for row in metrics(run)] == list(range(1, stats["num_steps"] + 1))
    first_rows = [name for name in lake.list_files(run.metrics_parts) if "part-0001" in name.uri]
    assert lake.read_bytes(first_rows[0].uri).startswith(f'{{"step": {step + 1},'.encode())
    assert same_model(run, undisturbed)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_driver_that_is_told_to_end_stops_in_order_and_goes_on_later(place, num_workers):
    settings = SETTINGS | {"train__workers": num_workers, "train__epochs": 20, "train__checkpoint_every": 100}
    run, config = make_run(place, **settings)
    with pytest.raises(StoppedError, match=r"told to end \(SIGTERM\) and stopped after step \d+, whose checkpoint"):
        disturbed(run, config, lambda: os.kill(os.getpid(), signal.SIGTERM))
    step = complete_checkpoints(run)[-1]
    assert not lake.exists(run.stop)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert stats["restarts"] == 0
    assert stats["num_steps"] > step
    assert [row["step"] for row in metrics(run)] == list(range(1, stats["num_steps"] + 1))


def test_a_run_that_gets_worse_offers_its_best_step(tmp_path, tokenizer):
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
    weights = load(lake.read_bytes(f"{run.checkpoint(best)}/model.safetensors"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in model(run).items())


def test_checkpoints_by_seconds(place):
    settings = {"train__epochs": 4, "train__checkpoint_every": 10_000, "train__keep_checkpoints": 99}
    run, config = make_run(place, train__checkpoint_seconds=0.05, **settings)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert 3 < len(complete_checkpoints(run)) < stats["num_steps"]
