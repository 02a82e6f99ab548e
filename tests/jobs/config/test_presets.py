"""Every preset runs end to end, scaled down, and its model beats the unigram baseline."""

import math
import os

import pytest

from jobs.config import preset_names, resolve
from jobs.engine.inline import InlineEngine
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.model.language_model import DataShape
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io.configs import weight_shapes
from jobs.pipeline import run_all, start_run
from tests.support.handmade import TEXT

pytestmark = pytest.mark.slow

SMALL = {
    "tokenize.vocab_size": 300, "model.embedding_size": 32, "embed.size": 32, "embed.workers": 1, "embed.epochs": 1,
    "model.hidden_size": 64, "model.hidden_sizes": [64], "model.num_heads": 2, "model.num_kv_heads": 2,
    "model.num_layers": 2, "train.workers": 1, "train.max_tokens": 400_000, "train.eval_windows": 512,
    "train.batch_size": 16, "train.max_seconds": None, "generate.num_samples": 1, "generate.max_new_words": 5,
}  # fmt: skip
# Settings of presets that do not suit a text of 20 KB, with values that do.
OTHER = {
    "averaged-dense": {"train.workers": 2, "train.batch_size": 64},
    "embedding-regression": {"windows.size": 8, "windows.overlap": 6, "train.epochs": 3},
    "nesterov-regression": {"windows.overlap": 3, "train.workers": 2, "train.sync_every": 50, "train.epochs": 1},
    "word2vec-attention": {"windows.overlap": 12, "train.epochs": 8},
    "attention-dense": {"windows.size": 8, "windows.overlap": 6, "train.epochs": 2},
}
PIPELINES = sorted(OTHER)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return str(tmp_path / "text.txt")


@pytest.mark.long
@pytest.mark.parametrize("preset", PIPELINES)
def test_a_preset_runs_and_beats_its_baselines(preset, corpus, tmp_path):
    run = start_run(Lake((tmp_path / "lake").as_uri()).run("r"), corpus, preset, SMALL | OTHER[preset])
    stats = run_all(run, InlineEngine())
    train = stats["train"]
    regresses = "mean_vector_loss" in train
    assert train["valid_loss"] < (train["mean_vector_loss"] - 0.03 if regresses else train["unigram_loss"] - 0.8)
    assert train["valid_accuracy"] > 1.5 * train["unigram_accuracy"]
    assert train["train_loss"] < (1 if regresses else train["unigram_loss"])
    averages = resolve("none", preset).train.strategy == "average"
    assert train["workers"] == (2 if averages else 1)
    assert ("embed" in stats) == (preset == "word2vec-attention")
    assert stats["generate"]["num_tokens"] > 0
    assert stats["generate"]["first_prompt"] == "The man starts with"
    card = store.read_bytes(join(run.model, "README.md")).decode()
    assert "`transformers` has no such" in card
    assert store.exists(run.model_archive)


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_resolves_to_a_configuration(preset):
    config = resolve("none", preset)
    assert config.preset == preset


def test_presets_have_the_numbers_of_the_pipelines_that_they_follow():
    averaged = resolve("none", "averaged-dense")
    assert (averaged.tokenize.kind, averaged.tokenize.vocab_size) == ("word", 3000)
    assert (averaged.model.embedding_size, averaged.model.hidden_sizes) == (32, (128, 128))
    assert (averaged.train.strategy, averaged.train.sync_every, averaged.train.epochs) == ("average", 0, 5.0)
    assert (averaged.train.optimizer, averaged.train.learning_rate, averaged.train.decay_per_epoch) == (
        "adam",
        0.005,
        0.9,
    )
    assert (averaged.generate.max_new_words, averaged.generate.temperature) == (200, 0.7)
    word2vec = resolve("none", "word2vec-attention")
    assert (word2vec.windows.size, word2vec.windows.overlap, word2vec.train.embeddings) == (15, 7, "embed")
    regression = resolve("none", "embedding-regression")
    assert (regression.windows.size, regression.model.embedding_size, regression.model.hidden_sizes) == (
        128,
        512,
        (1024,),
    )
    nesterov = resolve("none", "nesterov-regression")
    assert (nesterov.windows.size, nesterov.model.embedding_size, nesterov.model.hidden_sizes) == (4, 100, (100,))
    assert (nesterov.train.optimizer, nesterov.train.momentum, nesterov.train.nesterov) == ("sgd", 0.9, True)
    assert (nesterov.train.strategy, nesterov.train.sync_every) == ("average", 5)


@pytest.mark.parametrize(("preset", "millions"), [("small", 24.0), ("medium", 124.3)])
def test_transformers_have_the_size_in_their_description(preset, millions):
    config = resolve("none", preset)
    shape = DataShape(config.tokenize.vocab_size, config.windows.size, 0)
    shapes = weight_shapes(Llama, LlamaConfig.of(config.model, shape))
    assert sum(map(math.prod, shapes.values())) / 1e6 == pytest.approx(millions, abs=0.1)
