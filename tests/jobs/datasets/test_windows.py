"""Windows: their number follows the closed formula, and each has the tokens of the stream, for any shards."""

import pickle
from dataclasses import replace
from functools import reduce
from itertools import combinations_with_replacement
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.config import TokenizeConfig, WindowsConfig
from jobs.corpus.byte_ranges import divide_sources
from jobs.datasets.encoding import SplitTask, write_token_shards
from jobs.datasets.shards import TokenShard, locate_sources
from jobs.datasets.split import SplitRule
from jobs.datasets.streams import StreamRule, plan_window_shards, tally, window_starts, write_window_shard
from jobs.datasets.windows import SIDES, WindowSet, WindowShard, num_tokens_of, num_windows
from jobs.errors import DamagedError, InputError
from jobs.lake.layout import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.store import publish_manifest, read_bytes, write_bytes
from jobs.lake.uri import join, to_uri
from jobs.sources.listing import Source
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import tokenizer_json

BYTES = Tokenizer(tokenizer_json([]))  # each byte is a token
SPLIT = SplitRule("tail", 0.5, 0, 1, 1, 1, 0.5)


def test_closed_formula():
    for size in range(1, 21):
        for stride in range(1, size + 1):
            for tokens in range(201):
                starts = range(0, max(0, tokens - size), stride)  # a window needs size + 1 tokens
                assert num_windows(tokens, size, stride) == len(starts)
                covered = num_tokens_of(len(starts), size, stride) if starts else 0
                assert not starts or covered <= tokens < covered + stride  # the rest is too short for one more
                assert num_windows(tokens, size, stride, "shift") == len(starts) + bool(starts and covered < tokens)


@pytest.mark.parametrize("last", ["drop", "shift"])
@pytest.mark.parametrize("shard_tokens", [1, 17, 1000])
def test_every_size_of_stream_and_shard(tmp_path, last, shard_tokens):
    """All n <= 200 tokens are covered; each token is different, so that the windows can be told apart."""
    ids = np.arange(200, dtype=np.uint8)
    rule = StreamRule("", SPLIT, 1, 1, "stream", last, 256, 0)
    for size, stride in [(1, 1), (2, 1), (3, 2), (15, 8), (19, 19), (20, 7)]:
        for tokens in range(201):
            entries = [FileEntry(str(begin), 0, "") for begin in range(0, 200, 50)]
            units = [min(50, max(0, tokens - begin)) for begin in range(0, 200, 50)]
            here = replace(rule, size=size, stride=stride)
            rows = []
            for plan in plan_window_shards("train", entries, units, here, shard_tokens):
                stream = np.concatenate([ids[int(p.entry.name) :][p.begin : p.end] for p in plan.slices])
                starts = window_starts(plan, here, len(stream))
                shard = WindowShard(stream, starts, stride)
                rows += shard.read(np.arange(plan.num_windows), size).tolist()
            assert len(rows) == num_windows(tokens, size, stride, last)
            ends = [tokens - size - 1] * (last == "shift")
            regular = range(0, max(0, tokens - size), stride)
            wanted = list(dict.fromkeys([*regular, *ends])) if regular else []
            assert rows == [list(range(start, start + size + 1)) for start in wanted]
            assert last == "drop" or not rows or {i for row in rows for i in row} == set(range(tokens))


@pytest.mark.parametrize("last", ["drop", "shift"])
def test_shards_have_all_windows_of_every_size(last):
    """For all sizes and overlaps, the number follows the formula, and the slices of a shard cover its windows."""
    entries = [FileEntry(str(begin), 0, "") for begin in range(0, 200, 50)]
    for stride, size in combinations_with_replacement(range(1, 21), 2):
        rule = StreamRule("", SPLIT, size, stride, "stream", last, 256, 0)
        for tokens in range(201):
            units = [min(50, max(0, tokens - begin)) for begin in range(0, 200, 50)]
            plans = plan_window_shards("train", entries, units, rule, 64)
            assert sum(plan.num_windows for plan in plans) == num_windows(tokens, size, stride, last)
            for plan in plans:
                begin = int(plan.slices[0].entry.name) + plan.slices[0].begin
                end = int(plan.slices[-1].entry.name) + plan.slices[-1].end
                assert end <= tokens
                assert begin == min(plan.number * max(1, 64 // stride) * stride, end - size - 1)
                assert sum(part.end - part.begin for part in plan.slices) == end - begin
            assert not plans or last == "drop" or end == tokens


def write_tokens(folder, documents, split_bytes):
    """Write token shards of a file with a document in each line."""
    data = "\n".join(documents).encode()
    write_bytes(join(folder, "text.txt"), data)
    source = Source("text.txt", join(folder, "text.txt"), len(data))
    splits = enumerate(divide_sources([source], split_bytes, whole_files=False))
    items = [SplitTask(number, parts) for number, parts in splits]
    how = TokenizeConfig(documents="line")
    done = [write_token_shards(item, folder_uri=folder, tokenizer=BYTES, settings=how) for item in items]
    return locate_sources([shard for task in done for shard in task.shards])[0]


def write_windows(lake, entries, rule, shard_tokens):
    folder = lake.dataset("windows", "f")
    sides = {
        side: reduce(add, (tally([entry], rule=rule, tokenizer=BYTES)[side] for entry in entries)) for side in SIDES
    }
    plans = [
        plan for side in SIDES for plan in plan_window_shards(side, entries, sides[side].units, rule, shard_tokens)
    ]
    files = [write_window_shard(pickle.loads(pickle.dumps(plan)), folder_uri=folder, rule=rule) for plan in plans]
    publish_manifest(folder, Manifest("windows", "f", tuple(files), {"size": rule.size, "stride": rule.stride}))
    return sides


def make_rule(folder, documents, size, stride, over, split="hash", last="drop"):
    config = WindowsConfig(split=split, valid_fraction=0.4, size=size, leak_ngram=0)
    chosen = SplitRule.of(split, config, sum(map(len, documents)))
    return StreamRule(folder, chosen, size, stride, over, last, BYTES.vocab_size, 0)


def expected(folder, entries, rule, side):
    """Compute the windows of a side from the documents one by one."""
    documents = []
    for entry in entries:
        shard = TokenShard.open(folder, entry)
        parts = rule.split.segments(shard)
        for begin, end, is_valid, goes_on in zip(parts.begin, parts.end, parts.is_valid, parts.goes_on, strict=True):
            if is_valid == (side == "valid"):
                documents.append([*shard.ids[begin : end - goes_on].tolist(), *[BYTES.end_of_text][: int(goes_on)]])
    streams = documents if rule.over == "document" else [[token for document in documents for token in document]]
    starts = [list(range(0, len(stream) - rule.size, rule.stride)) for stream in streams]
    if rule.last == "shift":
        for stream, of_stream in zip(streams, starts, strict=True):
            if of_stream and of_stream[-1] < len(stream) - rule.size - 1:
                of_stream.append(len(stream) - rule.size - 1)
    pairs = zip(streams, starts, strict=True)
    return [stream[start : start + rule.size + 1] for stream, of_stream in pairs for start in of_stream]


long_texts = st.integers(60, 240).map(lambda size: "".join("abcdefgh"[i * i % 7] for i in range(size)))


@settings(max_examples=40)
@given(
    documents=st.lists(st.text("abcdefgh", min_size=1, max_size=30) | long_texts, min_size=1, max_size=12),
    size=st.integers(1, 20),
    data=st.data(),
    shard_tokens=st.integers(1, 60),
    split_bytes=st.integers(1, 200),
    over=st.sampled_from(["stream", "document"]),
)
def test_each_window_has_the_tokens_of_the_stream(
    tmp_path_factory, documents, size, data, shard_tokens, split_bytes, over
):
    stride = size - data.draw(st.integers(0, size - 1), "overlap")
    last = data.draw(st.sampled_from(["drop", "shift"]), "last")
    lake = Lake(to_uri(str(tmp_path_factory.mktemp("my läke"))))
    folder = lake.dataset("tokens", "t")
    entries = write_tokens(folder, documents, split_bytes)
    rule = make_rule(folder, documents, size, stride, over, last=last)
    sides = write_windows(lake, entries, rule, shard_tokens)
    num_segments = sum(side.num_documents + side.num_skipped for side in sides.values())
    assert num_segments >= len(documents)
    if over == "stream":
        text = sum(side.num_bytes + side.num_gap_bytes for side in sides.values())
        assert text == sum(map(len, documents))
        num_cuts = num_segments - len(documents)  # an end-of-text token stands for the first token of each gap
        tokens = sum(side.num_tokens + side.num_gap_tokens for side in sides.values())
        assert tokens == text + len(documents) + num_cuts
    for side in SIDES:
        windows = expected(folder, entries, rule, side)
        found = WindowSet.open(lake, "f", side)
        assert found.num_windows == sum(found.windows_per_shard) == len(windows)
        if over == "stream":
            assert len(windows) == num_windows(sides[side].num_tokens, size, stride, last)
        per_shard = max(1, shard_tokens // stride)
        assert all(count == per_shard for count in found.windows_per_shard[:-1])
        assert found.read(np.arange(found.num_windows)).tolist() == windows


@pytest.fixture
def window_set(tmp_path):
    lake = Lake(to_uri(str(tmp_path)))
    folder = lake.dataset("tokens", "t")
    documents = [f"document number {number} has a few words" for number in range(400)]
    entries = write_tokens(folder, documents, 4096)
    write_windows(lake, entries, make_rule(folder, documents, 16, 8, "stream", "block"), 300)
    return lake, WindowSet.open(lake, "f", "train")


def test_windows_in_any_order(window_set):
    _, windows = window_set
    assert windows.size == 16
    order = np.random.default_rng(0).permutation(windows.num_windows)
    rows = windows.read(order)
    assert rows.dtype == np.int64
    assert rows.shape == (len(order), 17)
    assert np.array_equal(rows[np.argsort(order)], windows.read(np.arange(len(order))))
    assert windows.read(np.array([], np.int64)).shape == (0, 17)


def test_only_a_few_shards_are_kept_open(window_set):
    _, windows = window_set
    assert len(windows.windows_per_shard) > 20
    windows.read(np.arange(windows.num_windows))
    assert windows._open_shard.cache_info().currsize == 8


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_shard_is_refused(window_set, damage):
    lake, windows = window_set
    uri = join(lake.dataset("windows", "f"), windows._entries[1].name)
    data = read_bytes(uri)
    write_bytes(uri, data[:-8] if damage == "truncated" else data[:-9] + b"x" + data[-8:])
    assert windows.read(np.array([0])).shape == (1, 17)
    with pytest.raises(DamagedError, match="the manifest"):
        windows.read(np.array([windows.windows_per_shard[0]]))


def test_a_missing_dataset_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no windows here"):
        WindowSet.open(Lake(to_uri(str(tmp_path))), "f", "train")
