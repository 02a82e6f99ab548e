"""The pairs of neighbours, the gradients of a batch, and the average of the weights of workers."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from jobs.config import EmbedConfig
from jobs.embeddings import word2vec
from jobs.embeddings.train import WorkerResult, average, plan_rounds
from jobs.embeddings.word2vec import SkipGram, Vocabulary, Weights, skip_gram_pairs
from jobs.lake.manifest import FileEntry


def test_vocabulary():
    counts = np.array([7, 2, 0, 5, 90, 6])
    vocabulary = Vocabulary.of(counts, min_count=5, end_of_text=4)
    assert vocabulary.ids.tolist() == [0, 3, 5]
    assert vocabulary.counts.tolist() == [7, 5, 6]
    assert vocabulary.rows(np.array([5, 4, 0, 9, 3, 1], np.uint16)).tolist() == [2, -1, 0, -1, 1, -1]
    noise = vocabulary.noise()
    assert noise == pytest.approx(np.array([7, 5, 6]) ** 0.75 / sum(n**0.75 for n in (7, 5, 6)))


def test_frequent_tokens_are_subsampled():
    vocabulary = Vocabulary.of(np.array([9000, 990, 10]), 1, 3 - 1)
    kept = Vocabulary(np.arange(3), np.array([9000, 990, 10])).keep_probability(0.01)
    ratio = 0.01 * 10_000 / np.array([9000, 990])
    assert kept == pytest.approx([*(np.sqrt(ratio) + ratio), 1])
    assert vocabulary.keep_probability(0).tolist() == [1, 1]


def test_every_pair_in_reach_occurs_once_and_none_spans_documents():
    rows, documents = np.arange(40), np.repeat([0, 1, 2], [20, 1, 19])
    seen = Counter()
    for seed in range(200):
        centers, contexts = skip_gram_pairs(rows, documents, 3, np.random.default_rng(seed))
        pairs = list(zip(centers.tolist(), contexts.tolist(), strict=True))
        assert len(pairs) == len(set(pairs))
        seen.update(pairs)
    expected = {(i, j) for i in range(40) for j in range(40) if 0 < abs(i - j) <= 3 and documents[i] == documents[j]}
    assert set(seen) == expected
    for (i, j), times in seen.items():  # the reach is drawn evenly from 1 to 3
        assert times / 200 == pytest.approx((4 - abs(i - j)) / 3, abs=0.2)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_short_streams(length):
    centers, contexts = skip_gram_pairs(np.arange(length), np.zeros(length, np.int64), 5, np.random.default_rng(0))
    assert sorted(centers.tolist()) == sorted(contexts.tolist()) == ([0, 1] if length == 2 else [])


def test_a_batch_moves_vectors_along_the_gradient_of_its_loss(monkeypatch):
    monkeypatch.setattr(word2vec, "_MAX_GRADIENTS", 10**9)
    rng = np.random.default_rng(0)
    before = Weights(*(rng.normal(size=(2, 30, 8)).astype(np.float32)))
    centers, contexts = rng.integers(0, 30, (2, 128))
    negatives = torch.from_numpy(rng.integers(0, 30, (2, 16)))
    model = SkipGram(before, np.full(30, 1 / 30), 5, rng)
    monkeypatch.setattr(model, "_draw_negatives", lambda groups: negatives[:groups])
    loss = model.train(centers, contexts, 0.01, 0.01)

    own, near = (
        torch.tensor(matrix, dtype=torch.float64, requires_grad=True) for matrix in (before.centers, before.contexts)
    )
    positive = (own[centers] * near[contexts]).sum(1)
    group = torch.arange(128) // 64
    far = (own[centers][:, None] * near[negatives[group]]).sum(2)  # (pairs, negatives)
    expected = -torch.nn.functional.logsigmoid(positive).sum() - 5 * torch.nn.functional.logsigmoid(-far).mean(1).sum()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for matrix, after in (own, model.weights.centers), (near, model.weights.contexts):
        assert after == pytest.approx((matrix - 0.01 * matrix.grad).detach().numpy(), abs=1e-5)


def test_a_token_that_fills_a_batch_does_not_overshoot():
    weights = Weights.initial(2, 4, seed=0)
    model = SkipGram(weights, np.array([0.5, 0.5]), 5, np.random.default_rng(0))
    for _ in range(50):
        model.train(np.zeros(1024, np.int64), np.ones(1024, np.int64), 0.05, 0.05)
    assert np.isfinite(model.weights.centers).all()
    assert np.abs(model.weights.centers).max() < 10


def test_one_pair_and_no_pair(monkeypatch):
    model = SkipGram(Weights.initial(3, 4, seed=0), np.full(3, 1 / 3), 5, np.random.default_rng(0))
    assert model.train(np.zeros(0, np.int64), np.zeros(0, np.int64), 0.1, 0.1) == 0
    assert model.train(np.array([1]), np.array([2]), 0.1, 0.1) == pytest.approx(6 * np.log(2), rel=1e-3)


def test_averages_are_weighted_by_the_counts_of_each_worker():
    before = Weights(np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32))
    changes = ([[1.0], [4.0], [0.0]], [8.0, 3.0, 0.0]), ([[5.0], [0.0], [0.0]], [8.0, 0.0, 0.0])
    trained = [
        WorkerResult(Weights(np.array(matrix, np.float32), before.contexts), np.array(counts), np.zeros(3), 0.0, 0)
        for matrix, counts in changes
    ]
    after = average(before, trained)
    assert after.centers.tolist() == [[3], [4], [0]]  # both saw the first, one the second, none the third
    assert after.contexts.tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("sync_tokens", [1, 7, 10_000])
def test_each_epoch_has_each_token_once(workers, sync_tokens):
    entries = [FileEntry(f"shards/{i}", 0, "", {"tokens": n}) for i, n in enumerate((10, 0, 1, 25))]
    settings = EmbedConfig(workers=workers, sync_tokens=sync_tokens, epochs=2, learning_rate=1.0)
    rounds = list(plan_rounds(entries, settings))
    parts = [part for parts in rounds for part in parts]
    assert all(len(parts) == workers for parts in rounds)
    for epoch in range(2):
        mine = [part for part in parts if part.key[1] == epoch]
        tokens = [(p.entry.name, t) for part in mine for p in part.slices for t in range(p.begin, p.end)]
        assert sorted(tokens) == [(entry.name, t) for entry in entries for t in range(entry.counts["tokens"])]
    assert len({part.key for part in parts}) == len(parts)
    rates = [(parts[0].first_rate, parts[0].last_rate) for parts in rounds]
    assert rates[0][0] == 1
    assert rates[-1][1] == pytest.approx(0.1)
    assert all(last == first for (_, last), (first, _) in pairwise(rates))
