"""The bigram baseline on known counts."""

import numpy as np
import pytest

from jobs.datasets.baselines import BigramModel, PairCounts

VOCAB_SIZE = 5


def fit(stream):
    """Return the model of a stream, and the counts of its pairs."""
    keys, counts = np.unique(stream[:-1] * VOCAB_SIZE + stream[1:], return_counts=True)
    pairs = PairCounts(keys, counts)
    tokens = np.bincount(stream, minlength=VOCAB_SIZE)
    return BigramModel(pairs, np.bincount(stream[:-1], minlength=VOCAB_SIZE), tokens), pairs


def test_a_cycle_is_predicted_from_its_pairs():
    bigram, pairs = fit(np.tile([0, 3, 1, 2], 1000))
    assert bigram.loss(pairs, pairs) < 0.01


def test_independent_tokens_have_the_unigram_loss():
    stream = np.random.default_rng(0).integers(0, 4, 20_000)
    bigram, pairs = fit(stream)
    assert bigram.loss(pairs, pairs) == pytest.approx(np.log(4), abs=0.002)


@pytest.mark.parametrize("strength", [1.0, 64.0])
def test_probabilities_of_all_tokens_add_up_to_one(strength):
    stream = np.random.default_rng(0).integers(0, VOCAB_SIZE, 200)
    _, found = fit(stream)
    everything = np.arange(VOCAB_SIZE**2)
    counts = np.zeros(VOCAB_SIZE**2, np.int64)
    counts[found.keys] = found.counts
    bigram = BigramModel(
        PairCounts(everything, counts), counts.reshape(VOCAB_SIZE, -1).sum(1), np.bincount(stream, minlength=VOCAB_SIZE)
    )
    for first in range(VOCAB_SIZE):
        pairs = [PairCounts(np.array([first * VOCAB_SIZE + second]), np.array([1])) for second in range(VOCAB_SIZE)]
        losses = [bigram.loss_at(pair, strength, left_out=0) for pair in pairs]
        assert np.exp(-np.array(losses)).sum() == pytest.approx(1)


def test_pairs_of_several_tasks_are_added():
    both = PairCounts.merge(
        [PairCounts(np.array([2, 5]), np.array([1, 2])), PairCounts(np.array([5, 9]), np.array([3, 4]))]
    )
    assert (both.keys.tolist(), both.counts.tolist()) == ([2, 5, 9], [1, 5, 4])
    assert PairCounts.merge([]).keys.tolist() == []
