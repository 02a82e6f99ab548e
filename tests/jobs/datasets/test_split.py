"""The rule of the split by every method: neighbours together, the same when files are added, long documents cut."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from jobs.config import WindowsConfig
from jobs.datasets.shards import TokenShard
from jobs.datasets.split import SplitRule

SIZES = [("a.txt", 3_000_000), ("b.txt", 500_000), ("c.txt", 40_000)]


def make_shard(sources, document_bytes=200):
    """Return a shard with documents of one size in each source; four bytes are a token."""
    parts = [np.arange(0, size, document_bytes) for _, size in sources]
    count = sum(map(len, parts))
    tokens = document_bytes // 4 + 1
    return TokenShard(
        ids=np.zeros(count * tokens, np.uint16),
        ends=np.arange(1, count + 1) * tokens,
        source=np.repeat(np.arange(len(parts), dtype=np.uint32), [len(part) for part in parts]),
        offset=np.concatenate(parts).astype(np.uint64),
        position=np.concatenate(parts),
        num_bytes=np.full(count, document_bytes, np.uint32),
        hash=np.random.default_rng(0).integers(0, 2**64, count, np.uint64),
        sources=list(sources),
    )


def rule_of(method, sources, **settings):
    return SplitRule.of(method, WindowsConfig(**settings), sum(size for _, size in sources))


def is_valid(rule, shard):
    """Return a mask of the documents for validation; none is cut."""
    segments = rule.segments(shard)
    assert segments.document.tolist() == list(range(len(shard.ends)))
    assert not segments.is_part.any()
    assert (segments.end - segments.begin).tolist() == shard.lengths.tolist()
    return segments.is_valid


@pytest.mark.parametrize("method", ["block", "hash", "tail"])
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_before_the_threshold_is_moved(method, fraction, seed):
    valid = is_valid(rule_of(method, SIZES, valid_fraction=fraction, seed=seed), make_shard(SIZES))
    assert valid.mean() == pytest.approx(fraction, abs=0.02)


@pytest.mark.parametrize("method", ["source", "block", "hash", "tail"])
def test_a_document_stays_on_its_side_when_files_are_added(method):
    sources = [(f"{number}.txt", 200_000) for number in range(60)]  # 12 MB: blocks are as large as they get
    more = [*sources[:30], ("new.txt", 900_000), *sources[30:]]
    shard, larger = make_shard(sources), make_shard(more)
    before = is_valid(rule_of(method, sources), shard)
    old = np.array([more[i][0] != "new.txt" for i in larger.source])
    if method == "hash":
        larger.hash[old] = shard.hash
    assert np.array_equal(is_valid(rule_of(method, more), larger)[old], before)


@pytest.mark.parametrize("method", ["source", "block", "hash", "tail"])
def test_a_higher_threshold_only_adds_to_validation(method):
    sources = [*SIZES, *((f"{number}.txt", 10_000) for number in range(40))]
    shard, rule = make_shard(sources), rule_of(method, sources)
    masks = [is_valid(replace(rule, threshold=threshold), shard) for threshold in (0, 0.1, 0.19, 0.2, 0.5, 1)]
    assert not masks[0].any()
    assert all(not (fewer & ~more).any() for fewer, more in pairwise(masks))
    # The first document of a file is never its tail.
    assert masks[-1].sum() == len(shard.ends) - (len(sources) if method == "tail" else 0)


def test_blocks_keep_neighbours_together():
    rule = rule_of("block", SIZES)
    assert rule.block_bytes == 1 << 16
    shard = make_shard(SIZES)
    valid = is_valid(rule, shard)
    blocks = shard.source.astype(int) * 10_000 + shard.position // rule.block_bytes
    assert all(len(set(valid[blocks == block])) == 1 for block in np.unique(blocks))
    assert sum(a != b for a, b in pairwise(valid)) <= 2 * (0.2 * 3_540_000 / rule.block_bytes + 3)


@pytest.mark.parametrize(("size", "block_bytes"), [(300, 4), (20_000, 256), (1_115_394, 16_384), (10**9, 65_536)])
def test_blocks_shrink_with_the_corpus(size, block_bytes):
    assert rule_of("block", [("a.txt", size)]).block_bytes == block_bytes


def test_equal_documents_fall_on_one_side():
    shard = make_shard(SIZES)
    shard.hash[:] = shard.hash[0]
    assert len(set(is_valid(rule_of("hash", SIZES), shard))) == 1


def test_pieces_of_equal_documents_fall_on_the_same_sides():
    sources = [("a.txt", 300_000), ("b.txt", 300_000)]
    shard = make_shard(sources, 300_000)
    shard.hash[:] = shard.hash[0]
    segments = rule_of("hash", sources).segments(shard)
    first, second = (segments.document == document for document in (0, 1))
    assert first.sum() > 2
    assert np.array_equal(segments.is_valid[first], segments.is_valid[second])
    assert np.array_equal(segments.begin[first], segments.begin[second] - shard.ends[0])


def test_tail_is_the_end_of_each_source():
    shard = make_shard(SIZES)
    valid = is_valid(rule_of("tail", SIZES), shard)
    for source in range(3):
        assert list(valid[shard.source == source]) == sorted(valid[shard.source == source])


@pytest.mark.parametrize("document_bytes", [200, 1000, 50_000])
def test_sources_are_kept_whole(document_bytes):
    sources = [(f"{number}.txt", 1000 * (number % 7 + 1)) for number in range(300)]
    rule = rule_of("source", sources)
    shard = make_shard(sources, document_bytes)
    valid = is_valid(rule, shard)
    assert all(len(set(valid[shard.source == source])) == 1 for source in range(300))
    assert valid.mean() == pytest.approx(0.2, abs=0.07)
    assert not np.array_equal(valid, is_valid(rule_of("source", sources, seed=1), shard))


@pytest.mark.parametrize("method", ["block", "hash", "tail"])
@pytest.mark.parametrize(("size", "leak_ngram"), [(1, 0), (64, 13), (300, 400)])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.7])
def test_a_cut_leaves_a_gap_of_a_window_and_an_ngram(method, size, leak_ngram, fraction):
    sources = [("a.txt", 2_000_000)]
    rule = rule_of(method, sources, size=size, leak_ngram=leak_ngram, valid_fraction=fraction)
    segments = rule.segments(make_shard(sources, 2_000_000))
    assert len(segments.document) >= 2
    assert np.all(segments.is_valid[1:] != segments.is_valid[:-1])
    assert np.all(segments.end - segments.begin > size)
    # The last token of a segment gives way to the end-of-text token.
    gaps = segments.begin[1:] - (segments.end[:-1] - 1)
    assert np.all(gaps == max(size, leak_ngram, 13))
    share = (segments.end - segments.begin)[segments.is_valid].sum() / (segments.end - segments.begin).sum()
    assert share == pytest.approx(fraction, abs=0.05)  # before the threshold is moved
    assert segments.begin[0] == 0
    assert segments.end[-1] == 500_001
    assert segments.goes_on.tolist() == [True] * (len(gaps)) + [False]
