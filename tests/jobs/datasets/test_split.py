"""The split by every method: near its share, neighbours together, the same when files are added."""

from itertools import pairwise

import numpy as np
import pytest

from jobs.config import WindowsConfig
from jobs.datasets.shards import TokenShard
from jobs.datasets.split import SplitRule

SIZES = [("a.txt", 3_000_000), ("b.txt", 500_000), ("c.txt", 40_000)]


def make_shard(sources, document_bytes=200):
    parts = [np.arange(0, size, document_bytes) for _, size in sources]
    count = sum(map(len, parts))
    return TokenShard(
        ids=np.zeros(count * 2, np.uint16),
        ends=np.arange(2, 2 * count + 1, 2),
        source=np.repeat(np.arange(len(parts), dtype=np.uint32), [len(part) for part in parts]),
        offset=np.concatenate(parts).astype(np.uint64),
        position=np.concatenate(parts),
        num_bytes=np.full(count, document_bytes, np.uint32),
        hash=np.random.default_rng(0).integers(0, 2**64, count, np.uint64),
        sources=list(sources),
    )


def choose(sources, **settings):
    return SplitRule.choose(WindowsConfig(**settings), sources)


@pytest.mark.parametrize("method", ["block", "hash", "tail"])
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_share(method, fraction, seed):
    valid = choose(SIZES, split=method, valid_fraction=fraction, seed=seed).is_valid(make_shard(SIZES))
    assert valid.dtype == bool
    assert valid.mean() == pytest.approx(fraction, abs=0.02)


@pytest.mark.parametrize("method", ["source", "block", "hash", "tail"])
def test_a_document_stays_on_its_side_when_files_are_added(method):
    sources = [(f"{number}.txt", 200_000) for number in range(60)]  # 12 MB: blocks are as large as they get
    more = [*sources[:30], ("new.txt", 900_000), *sources[30:]]
    shard, larger = make_shard(sources), make_shard(more)
    before = choose(sources, split=method).is_valid(shard)
    old = np.array([more[i][0] != "new.txt" for i in larger.source])
    if method == "hash":
        larger.hash[old] = shard.hash
    assert np.array_equal(choose(more, split=method).is_valid(larger)[old], before)


def test_blocks_keep_neighbours_together():
    rule = choose(SIZES, split="block")
    assert rule.block_bytes == 1 << 16
    shard = make_shard(SIZES)
    valid = rule.is_valid(shard)
    blocks = shard.source.astype(int) * 10_000 + shard.position // rule.block_bytes
    assert all(len(set(valid[blocks == block])) == 1 for block in np.unique(blocks))
    assert sum(a != b for a, b in pairwise(valid)) <= 2 * (0.2 * 3_540_000 / rule.block_bytes + 3)


@pytest.mark.parametrize(("size", "block_bytes"), [(300, 4), (20_000, 256), (1_115_394, 16_384), (10**9, 65_536)])
def test_blocks_shrink_with_the_corpus(size, block_bytes):
    rule = choose([("a.txt", size)])
    assert (rule.method, rule.block_bytes) == ("block", block_bytes)


def test_equal_documents_fall_on_one_side():
    shard = make_shard(SIZES)
    shard.hash[:] = shard.hash[0]
    assert len(set(choose(SIZES, split="hash").is_valid(shard))) == 1


def test_tail_is_the_end_of_each_source():
    shard = make_shard(SIZES)
    valid = choose(SIZES, split="tail").is_valid(shard)
    for source in range(3):
        assert list(valid[shard.source == source]) == sorted(valid[shard.source == source])


def test_sources_are_kept_whole():
    sources = [(f"{number}.txt", 1000 + number) for number in range(300)]
    rule = choose(sources)
    assert rule.method == "source"
    shard = make_shard(sources)
    valid = rule.is_valid(shard)
    assert all(len(set(valid[shard.source == source])) == 1 for source in range(300))
    assert valid.mean() == pytest.approx(0.2, abs=0.07)
    assert not np.array_equal(valid, choose(sources, seed=1).is_valid(shard))


@pytest.mark.parametrize(
    "sources",
    [
        [(f"{number}.txt", 1000) for number in range(19)],
        [*((f"{number}.txt", 1000) for number in range(100)), ("large.txt", 50_000)],
    ],
    ids=["few files", "one large file"],
)
def test_auto_takes_blocks(sources):
    assert choose(sources).method == "block"
