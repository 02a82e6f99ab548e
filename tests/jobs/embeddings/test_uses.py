"""The initial weights of a model from embeddings."""

import logging

import numpy as np
import pytest

from jobs.embeddings.files import Embeddings, token_names, write_embeddings
from jobs.embeddings.uses import initial_weights
from jobs.engine.inline import InlineEngine
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.training.job import TrainingJob
from jobs.training.warm_start import embeddings_uri, initial_model
from tests.support.handmade import FINGERPRINT, make_datasets, make_run, train_tokenizer

NAMES = ["a", "b", "c", "d"]


def test_tokens_are_matched_by_name_and_scaled(caplog):
    caplog.set_level(logging.INFO, "jobs")
    weights = np.random.default_rng(0).normal(0, 0.02, (4, 3)).astype(np.float32)
    given = Embeddings(["d", "x", "b"], np.array([0, 1, 2]), np.arange(9, dtype=np.float32).reshape(3, 3))
    started = initial_weights(given, NAMES, weights, "file")
    assert np.array_equal(started[[0, 2]], weights[[0, 2]])
    assert started[[3, 1]].std() == pytest.approx(weights.std(), rel=1e-5)
    assert started[3, 2] / started[1, 2] == pytest.approx(2 / 8)
    assert (
        "2 of the vocabulary's 4 tokens start from the embeddings in file; 1 tokens of this file are not in"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("tokens", "size", "message"),
    [
        (["a"], 4, r"file: vectors of 4 numbers, but model.embedding_size=3"),
        (["x"], 3, "none of the vocabulary's 4 tokens"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(tokens, size, message):
    given = Embeddings(tokens, None, np.ones((1, size), np.float32))
    with pytest.raises(InputError, match=message):
        initial_weights(given, NAMES, np.ones((4, 3), np.float32), "file")


def make_tokens(lake):
    """Write handmade datasets; that of tokens has a manifest."""
    tokenizer = train_tokenizer()
    make_datasets(lake, tokenizer)
    folder = lake.dataset("tokens", FINGERPRINT)
    entry = store.write_file(folder, "tokenizer.json", tokenizer.json)
    store.publish_manifest(folder, Manifest("tokens", FINGERPRINT, (entry,)))
    return tokenizer


def test_training_starts_from_embeddings(tmp_path):
    lake = Lake(tmp_path.as_uri())
    tokenizer = make_tokens(lake)
    names = token_names(tokenizer.json)
    vectors = np.random.default_rng(1).normal(size=(100, 32)).astype(np.float32)
    write_embeddings(
        (tmp_path / "e").as_uri(), Embeddings(names[:100], np.arange(100), vectors), np.ones(100, np.int64)
    )
    (file,) = (tmp_path / "e").glob("*.csv")
    run, config = make_run(lake, "r", train__embeddings=str(file))
    shape = DataShape(tokenizer.vocab_size, 16, tokenizer.end_of_text)
    model = initial_model(TrainingJob(run, config, FINGERPRINT), shape)
    plain = build_model(config.model, shape, config.train.seed)
    ours, before = model.embeddings.detach().numpy(), plain.embeddings.detach().numpy()
    assert np.allclose(ours[:100] / ours[:100].std(), vectors / vectors.std(), atol=1e-3)
    assert np.array_equal(ours[100:], before[100:])


def test_embeddings_of_another_size_are_refused(tmp_path):
    from jobs.steps import train

    lake = Lake(tmp_path.as_uri())
    make_tokens(lake)
    (tmp_path / "e.txt").write_text("1 2\na 1 2\n")
    run, config = make_run(lake, "r", train__embeddings=str(tmp_path / "e.txt"))
    with pytest.raises(InputError, match=r"e\.txt: vectors of 2 numbers, but model.embedding_size=32"):
        train.run(run, config, InlineEngine(), lambda _: None)


def test_embed_names_the_embeddings_of_the_run(tmp_path):
    lake = Lake(tmp_path.as_uri())
    run, _ = make_run(lake, "r")
    assert embeddings_uri(run, "a.csv") == "a.csv"
    with pytest.raises(InputError, match="lists no embeddings; run the embed step first"):
        embeddings_uri(run, "embed")
    store.write_json(run.datasets, {**store.read_json(run.datasets), "embeddings": "123"})
    assert embeddings_uri(run, "embed") == lake.dataset("embeddings", "123")
