"""Texts in one buffer behave like a list of bytes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.corpus.texts import Texts

LISTS = st.lists(st.binary(max_size=40) | st.integers(1000, 1050).map(lambda size: b"ab" * (size // 2)), max_size=30)


def spread(texts, gap):
    """Return the same texts with `gap` before, between and after them."""
    ends = np.cumsum([len(gap) + len(text) for text in texts], dtype=np.int64)
    sizes = np.array([len(text) for text in texts], np.int64)
    return Texts(gap + gap.join(texts) + gap, ends - sizes, ends)


@given(LISTS, st.binary(max_size=12))
def test_texts_behave_alike_with_and_without_gaps(texts, gap):
    scattered, dense = spread(texts, gap), Texts.of(texts)
    for same in (scattered, dense, Texts.join([dense[:3], dense[3:]]), Texts.join([scattered])):
        assert list(same) == texts
        assert [same[i] for i in range(len(same))] == texts
        assert same.sizes.tolist() == list(map(len, texts))
        assert (same.hashes() == dense.hashes()).all()
    assert scattered.packed().tobytes() == b"".join(texts)
    assert list(dense.take(dense.sizes > 3)) == [text for text in texts if len(text) > 3]


@given(st.lists(st.binary(max_size=20) | st.integers(0, 40).map(bytes), max_size=60, unique=True))
def test_different_texts_have_different_hashes(texts):
    assert len(set(Texts.of(texts).hashes().tolist())) == len(texts)


def test_hashes_are_spread():
    """The split by hash takes hashes below a border, so the upper bits must be even for similar texts."""
    hashes = Texts.of(b"line number %d" % i for i in range(20_000)).hashes()
    counts = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16)
    assert abs(counts / len(hashes) - 1 / 16).max() < 0.01
