"""The pairs of neighbours, and the probabilities with which tokens are kept and drawn."""

from collections import Counter

import numpy as np
import pytest

from jobs.embeddings.word2vec import Vocabulary, skip_gram_pairs


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
