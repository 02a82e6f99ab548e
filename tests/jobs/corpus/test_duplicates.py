"""MinHash finds near duplicates, and no texts that share little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.corpus.duplicates import NUM_KEYS, near_keys
from jobs.corpus.texts import Texts
from jobs.lake.uri import join, to_uri
from tests.support.datasets import Pipeline, write_corpus

WORDS = st.text("abc \n", max_size=60).filter(str.strip).map(str.encode)


def words(seed, size=200):
    return np.random.default_rng(seed).integers(0, 5000, size).astype(str).tolist()


def with_changes(seed, num_changes):
    """Return a text with some words replaced, far from each other; each change alters five n-grams."""
    changed = words(seed)
    for position in range(3, 3 + 6 * num_changes, 6):
        changed[position] = "changed"
    return " ".join(changed).encode()


def share_found(num_changes):
    """Return the share of 200 texts that have a key in common with their changed copy."""
    originals, copies = (near_keys(Texts.of(with_changes(seed, n) for seed in range(200))) for n in (0, num_changes))
    return (originals == copies).any(axis=1).mean()


def test_the_share_of_found_copies_follows_the_formula():
    assert share_found(1) == 1
    for num_changes in (4, 8, 12):
        similarity = (196 - 5 * num_changes) / (196 + 5 * num_changes)
        assert share_found(num_changes) == pytest.approx(1 - (1 - similarity**8) ** 14, abs=0.1)
    different = near_keys(Texts.of(" ".join(words(seed)).encode() for seed in range(500)))
    assert len(np.unique(different)) == different.size


@settings(max_examples=200)
@given(st.lists(WORDS, max_size=12), st.lists(WORDS, max_size=3))
def test_keys_depend_on_the_words_alone(texts, before):
    """Whitespace between words and neighbouring texts do not matter."""
    keys = near_keys(Texts.of(texts))
    assert keys.shape == (len(texts), NUM_KEYS)
    assert (near_keys(Texts.of(before + texts))[len(before) :] == keys).all()
    assert (near_keys(Texts.of(b" ".join(text.split()) for text in texts)) == keys).all()
    same = [text.split() == other.split() for text in texts for other in texts]
    runs = [{tuple(text.split()[i : i + 5]) for i in range(max(1, len(text.split()) - 4))} for text in texts]
    equal = [(one == other).all() for one in keys for other in keys]
    assert all(equal[i] for i in range(len(same)) if same[i])
    disjoint = [not one & other for one in runs for other in runs]
    assert not any(equal[i] for i in range(len(same)) if disjoint[i])


@pytest.mark.parametrize("split_bytes", [4096, 1 << 20])
def test_the_first_of_near_duplicates_is_kept(tmp_path, monkeypatch, split_bytes):
    monkeypatch.setattr("jobs.corpus.duplicates.BUCKET_KEYS", 50)
    originals = [with_changes(seed, 0) for seed in range(20)]
    files = {
        "a.txt": b"\n\n".join(originals),
        "b.txt": b"\n\n".join([originals[3], with_changes(5, 1), b"of its own", with_changes(7, 1)]),
    }
    lake_uri = to_uri(str(tmp_path))
    corpus = write_corpus(join(lake_uri, "corpus"), files)
    pipeline = Pipeline(lake_uri, corpus, tokenize__drop_near_duplicates=True, tokenize__split_bytes=split_bytes)
    stats = pipeline.tokenize()
    assert (stats["num_documents"], stats["num_near_duplicate_documents"]) == (21, 3)
    assert stats["num_bytes"] == sum(map(len, originals)) + len("of its own")
