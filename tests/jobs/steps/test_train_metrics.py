"""The metrics of a training: each value matches its description."""

import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
import torch

from jobs.engine.inline import InlineEngine
from jobs.lake import store
from jobs.lake.uri import join
from jobs.model_io.folder import load_model
from jobs.pipeline import run_step
from jobs.statistics.check import check_file
from jobs.training.job import TrainingData
from jobs.training.schedule import Schedule
from tests.support.handmade import FINGERPRINT, make_run, metrics

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Give the test a local disk of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def trained(place, **settings):
    """Return a run with several evaluations, its configuration, and the rows of its ``metrics.csv``."""
    run, config = make_run(place, **{"train__epochs": 6, "train__eval_every": 10, **settings})
    run_step("train", run, config, InlineEngine())
    data = store.read_bytes(join(run.stats, "metrics.csv")).decode()
    return run, config, list(csv.DictReader(io.StringIO(data)))


@pytest.mark.parametrize("kind", ["transformer", "embedding_regression"])
@pytest.mark.parametrize("strategy", ["allreduce", "average"])
def test_every_cell_is_a_number_and_the_checker_finds_no_defect(place, kind, strategy):
    run, _, rows = trained(place, model__kind=kind, train__strategy=strategy, train__sync_every=5)
    found = check_file(join(run.stats, "metrics.csv"))
    assert [finding for finding in found if "never below" not in finding] == []
    assert not found or kind == "embedding_regression"  # which so short a text teaches too little
    assert len(rows) > 3
    assert all(math.isfinite(float(cell)) for row in rows for cell in row.values())
    columns = {"train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "unigram_accuracy", "learning_rate"}
    columns |= {"gradient_norm_mean", "gradient_norm_max", "seconds", "tokens_per_second", "peak_resident_bytes"}
    columns |= {"cpu_load", "step_milliseconds_p50", "step_milliseconds_p95"}
    columns |= {"mean_vector_loss"} if kind == "embedding_regression" else {"unigram_loss", "bigram_loss"}
    columns |= set() if kind == "embedding_regression" else {"perplexity", "bits_per_byte"}
    assert columns <= rows[0].keys()


def test_pandas_opens_the_table(place):
    run, _, rows = trained(place)
    table = pd.read_csv(io.BytesIO(store.read_bytes(join(run.stats, "metrics.csv"))))
    assert table.shape == (len(rows), len(rows[0]))
    assert all(kind.kind in "if" for kind in table.dtypes)
    assert not table.isna().any().any()


def test_learning_rates_follow_the_schedule(place):
    """Compare with the schedule, and with the formula of a cosine."""
    run, config, rows = trained(place, train__schedule="cosine", train__warmup_steps=5)
    settings, steps = config.train, metrics(run)
    schedule = Schedule.of(settings, TrainingData.open(place, FINGERPRINT).train.num_windows, config.windows.size)
    for row in steps:
        done = row["step"] - 1
        wave = (1 + math.cos(math.pi * done / len(steps))) / 2
        floor = settings.min_learning_rate_ratio
        expected = settings.learning_rate * min(1, (done + 1) / 6) * (floor + (1 - floor) * wave)
        assert row["learning_rate"] == pytest.approx(expected, rel=1e-12)
        assert row["learning_rate"] == schedule.learning_rate(done, row["seconds"])
    by_step = {row["step"]: row["learning_rate"] for row in steps}
    assert [float(row["learning_rate"]) for row in rows] == [by_step[int(row["step"])] for row in rows]


def test_losses_equal_those_of_the_saved_model(place):
    """Compute the losses with plain torch on all windows of both sides."""
    run, _, rows = trained(place, train__eval_windows=10_000)
    model, _ = load_model(run.model)
    data = TrainingData.open(place, FINGERPRINT)
    for windows, side in ((data.valid, "valid"), (data.train, "train")):
        tokens = torch.from_numpy(windows.read(np.arange(windows.num_windows)))
        with torch.no_grad():
            logits = model.eval()(tokens[:, :-1]).flatten(0, 1)
        targets = tokens[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits, targets).item()
        assert float(rows[-1][f"{side}_loss"]) == pytest.approx(loss, abs=1e-4)
        accuracy = (logits.argmax(-1) == targets).float().mean().item()
        assert float(rows[-1][f"{side}_accuracy"]) == pytest.approx(accuracy, abs=1e-3)
    assert float(rows[-1]["perplexity"]) == pytest.approx(math.exp(float(rows[-1]["valid_loss"])))


def test_a_row_aggregates_its_steps(place):
    run, _, rows = trained(place)
    steps = metrics(run)
    second = [row for row in steps if 10 < row["step"] <= 20]
    assert int(rows[1]["step"]) == 20
    assert float(rows[1]["gradient_norm_max"]) == max(row["gradient_norm"] for row in second)
    assert float(rows[1]["batch_loss"]) == pytest.approx(sum(row["loss"] for row in second) / 10)
    took = sorted(row["step_milliseconds"] for row in second)
    assert (float(rows[1]["step_milliseconds_p50"]), float(rows[1]["step_milliseconds_p95"])) == (took[4], took[9])
