"""Hashes of n-grams: only n-grams inside documents are hashed, each by all of its tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.datasets.contamination import hash_ngrams


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), max_size=12), st.integers(1, 14))
def test_equal_ngrams_have_equal_hashes_and_others_have_different_ones(documents, n):
    ends = [[*document, 9] for document in documents]
    ids = np.array([token for document in ends for token in document], np.uint16)
    hashes = hash_ngrams(ids, np.cumsum([len(document) for document in ends], dtype=np.int64), n)
    ngrams = [tuple(document[i : i + n]) for document in documents for i in range(len(document) - n + 1)]
    assert len(hashes) == len(ngrams)
    assert len(set(hashes.tolist())) == len(set(ngrams))
    assert len(set(zip(hashes.tolist(), ngrams, strict=True))) == len(set(ngrams))


@pytest.mark.parametrize("n", [1, 2, 13])
def test_hashes_are_spread(n):
    ids = np.random.default_rng(0).integers(0, 50_000, 100_000, np.uint16)
    hashes = np.unique(hash_ngrams(ids, np.array([len(ids)]), n))
    kept = np.sum((hashes >> np.uint64(32)) & np.uint64(7) == 0)
    assert kept / len(hashes) == pytest.approx(1 / 8, rel=0.1)
