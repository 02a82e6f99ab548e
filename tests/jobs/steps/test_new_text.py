"""Nights that are as long as the new text needs (`train.epochs_of_new_text`)."""

import math
import os

import numpy as np
import pytest

from jobs.engine.inline import InlineEngine
from jobs.lake import store
from jobs.lake.uri import join
from jobs.sources.new_text import share_of_new
from jobs.steps import train
from jobs.training.job import TrainingJob
from jobs.training.warm_start import locate_start
from tests.support.datasets import Pipeline, write_corpus
from tests.support.handmade import TEXT as LICENSE
from tests.support.handmade import TINY_MODEL

TEXT = LICENSE.encode()
FIRST = {"a.txt": TEXT[:4500], "b.txt": TEXT[4500:7500]}
NEW = TEXT[7500:10000]
LATER = {"train.init": "first", "tokenize.tokenizer": "inherit", "train.epochs_of_new_text": 2}


class Nights:
    """Runs of one corpus, which train few tokens of it."""

    def __init__(self, lake):
        self.lake, self.corpus = lake, join(lake, "texts")
        write_corpus(self.corpus, FIRST)

    def prepare(self, name, **settings):
        """Tokenize the corpus for a run, and cut its windows."""
        few = {"train.workers": 1, "train.batch_size": 8, "train.eval_every": 1000, "windows.valid_fraction": 0.2}
        night = Pipeline(self.lake, self.corpus, name, **TINY_MODEL, **few, **settings)
        store.write_bytes(night.run.config, night.config.to_json().encode())
        night.tokenize()
        night.stats = night.windows()
        return night

    def run(self, name, **settings):
        """Return the run, and the statistics of its training."""
        night = self.prepare(name, **settings)
        return night, train.run(night.run, night.config, InlineEngine(), night.lines.append)


def about(share):
    """What lies between documents is no text."""
    return pytest.approx(share, rel=0.03)


def steps_of(night, epochs):
    return math.ceil(round(epochs * night.stats["num_train_windows"] / 8, 6))


@pytest.fixture
def nights(local, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    nights = Nights(local)
    nights.first, stats = nights.run("first", **{"train.epochs_of_new_text": 2})
    assert (stats["new_text_share"], stats["num_steps"]) == (None, steps_of(nights.first, 1))
    return nights


def test_a_night_is_as_long_as_the_new_file_needs(nights):
    write_corpus(nights.corpus, {"c.txt": NEW})
    second, stats = nights.run("second", **LATER)
    assert stats["new_text_share"] == about(2500 / 10_000)
    assert stats["num_steps"] == steps_of(second, 2 * stats["new_text_share"]) < steps_of(second, 1)
    _, stats = nights.run("all", **{**LATER, "train.epochs_of_new_text": 9})
    assert stats["num_steps"] == steps_of(second, 1)


def test_the_windows_come_from_all_text_and_others_each_night(nights):
    write_corpus(nights.corpus, {"c.txt": NEW})
    taken = []
    for name, settings in (("one", LATER), ("two", {**LATER, "train.init": "one"}), ("again", LATER)):
        night = nights.prepare(name, **settings, **{"windows.shard_tokens": 256})
        job, _ = locate_start(TrainingJob(night.run, night.config, night.datasets["windows"]))
        windows = job.open_data().train
        order = job.order(windows)
        drawn = order.take(0, order.num_windows)
        assert set(np.searchsorted(np.cumsum(windows.windows_per_shard), drawn, side="right")) == set(
            range(len(windows.windows_per_shard))
        )
        taken.append(drawn.tolist())
        train.run(night.run, night.config, InlineEngine(), night.lines.append)
    assert taken[0] == taken[2] != taken[1]


def test_text_that_a_model_between_has_seen_stays_new_to_the_one_to_start_from(nights):
    write_corpus(nights.corpus, {"c.txt": NEW})
    nights.run("rejected", **LATER)
    write_corpus(nights.corpus, {"d.txt": NEW[:1000]})
    assert nights.run("third", **LATER)[1]["new_text_share"] == about(3500 / 11_000)
    assert nights.run("other", **LATER | {"train.init": "rejected"})[1]["new_text_share"] == about(1000 / 11_000)


def test_without_new_text_the_epochs_hold(nights):
    store.write_bytes(join(nights.corpus, "other.txt"), FIRST["a.txt"])
    store.delete_file(join(nights.corpus, "a.txt"))
    renamed, stats = nights.run("renamed", **LATER)
    assert (stats["new_text_share"], stats["num_steps"]) == (0.0, steps_of(renamed, 1))


def test_the_first_attempt_decides_the_length_for_all_later_ones(nights):
    write_corpus(nights.corpus, {"c.txt": NEW})
    night = nights.prepare("second", **LATER)
    job = TrainingJob(night.run, night.config, night.datasets["windows"])
    decided, _ = locate_start(job)
    assert decided.config.train.epochs == about(0.5)
    store.delete_folder(nights.first.tokens.uri)
    assert locate_start(job)[0] == decided
    later = nights.prepare("later", **LATER)
    unknown, stats = locate_start(TrainingJob(later.run, later.config, later.datasets["windows"]))
    assert (unknown.config.train.epochs, stats["new_text_share"]) == (1.0, None)


def test_the_share_counts_bytes():
    assert share_of_new([("a", 1), ("b", 3)], ["a"]) == 0.75
    assert share_of_new([("a", 1), ("b", 3)], ["a", "b", "c"]) == 0
    assert share_of_new([], []) == 0
