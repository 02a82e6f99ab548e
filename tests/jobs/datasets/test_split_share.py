"""The share of a split is near the wanted one for any text, or a line says why not, with a remedy that works."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.config import WindowsConfig
from jobs.datasets.shards import TokenShard
from jobs.datasets.split_share import NEAR, find_split
from jobs.errors import InputError
from jobs.lake.uri import join, to_uri
from tests.support.datasets import TravelEngine
from tests.support.tokens import write_tokens

METHODS = ["auto", "source", "block", "hash", "tail"]


def split(tokens, **changes):
    return find_split(tokens, WindowsConfig(**{"size": 16, **changes}), TravelEngine())


def is_near(found, fraction):
    """Return whether the share is within a tenth of the smaller side, or one window."""
    total = found.num_windows("train") + found.num_windows("valid")
    room = max(1 + 1e-9, NEAR * min(fraction, 1 - fraction) * total)
    return min(found.num_windows("train"), found.num_windows("valid")) > 0 and (
        abs(found.num_windows("valid") - fraction * total) <= room
    )


def remedy_of(message):
    """Return the settings that a message names as its remedy, and the share that it promises."""
    line = re.search(r"; set ((?:windows\.\w+=\S+(?: and )?)+), which gives ([\d.]+)% of the windows", message)
    assert line, message
    return dict(re.findall(r"windows\.(\w+)=([^\s,]+)", line[1])), float(line[2]) / 100


def sides(tokens, found):
    """Return, for each document by file and offset, the validation part of its tokens."""
    placed = {}
    for entry in tokens.shards:
        shard = TokenShard.open(tokens.uri, entry)
        segments = found.rule.split.segments(shard)
        names = [shard.sources[source][0] for source in shard.source]
        starts = shard.ends - shard.lengths
        for document, begin, end, valid in zip(
            segments.document, segments.begin, segments.end, segments.is_valid, strict=True
        ):
            key = names[document], int(shard.offset[document])
            placed.setdefault(key, []).append((int(begin - starts[document]), int(end - starts[document]), bool(valid)))
    return placed


@pytest.mark.parametrize("method", ["auto", "block", "hash", "tail"])
@pytest.mark.parametrize("over", ["stream", "document"])
@pytest.mark.parametrize("name", ["a.txt", "another.txt", "b.txt", "c.txt"])
def test_one_long_paragraph_among_short_ones(tmp_path, method, over, name):
    tokens = write_tokens(to_uri(str(tmp_path)), {name: [300] * 60 + [800_000] + [300] * 30})
    found = split(tokens, split=method, over=over)
    assert found.share == pytest.approx(0.2, abs=0.02)
    assert found.tallies["train"].num_cut_documents == found.tallies["valid"].num_cut_documents == 1
    assert not found.note


@pytest.mark.parametrize("seed", range(8))
def test_equal_books_by_file(tmp_path, seed):
    books = {f"book {number}.txt": [100] * 400 for number in range(12)}
    tokens = write_tokens(to_uri(str(tmp_path)), books)
    found = split(tokens, split="source", seed=seed)
    assert found.share == pytest.approx(2 / 12, abs=0.005)  # whole books give no nearer share
    assert "16.7% of the windows instead of windows.valid_fraction=0.2: windows.split=source keeps" in found.note
    assert remedy_of(found.note)[0] == {"split": "block"}
    assert split(tokens, split="auto", seed=seed).share == pytest.approx(0.2, abs=0.02)
    assert split(tokens, split="source", seed=seed, valid_fraction=0.25).share == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("seed", range(4))
def test_auto_takes_whole_files_where_they_give_the_share(tmp_path, seed):
    many = {f"{number}.txt": [100] * (20 + number % 7) for number in range(60)}
    few = {f"{number}.txt": [100] * 50 for number in range(19)}
    one_large = {**many, "large.txt": [100] * 3000}
    for number, (files, method) in enumerate([(many, "source"), (few, "block"), (one_large, "block")]):
        found = split(write_tokens(join(to_uri(str(tmp_path)), str(number)), files), seed=seed)
        assert found.rule.split.method == method
        assert is_near(found, 0.2)


def test_a_threshold_that_gives_the_share_is_kept(tmp_path):
    """Then documents stay on their sides when files are added."""
    files = {f"{number}.txt": [200] * 5000 for number in range(6)}
    for method in ("block", "hash", "tail"):
        found = split(write_tokens(join(to_uri(str(tmp_path)), method), files), split=method)
        assert (found.rule.split.threshold, found.rule.split.draw) == (0.2, 0)


@pytest.mark.parametrize(
    ("files", "changes", "reason", "remedy"),
    [
        (
            {"a.txt": [100] * 99, "b.txt": [100]},
            {"split": "source"},
            "1.0% .*keeps each file whole",
            {"split": "block"},
        ),
        ({"a.txt": [100] * 99}, {"split": "source"}, "0 tokens in 0 documents.* each file whole", {"split": "block"}),
        ({f"{i}.txt": [90] for i in range(99)}, {"split": "tail"}, "0 tokens .*end of each file", {"split": "block"}),
        ({"a.txt": [10] * 99}, {"over": "document"}, "none of its 99 documents has enough", {"over": "stream"}),
        ({"a.txt": [40] * 4}, {"size": 100}, "needs 101 tokens; the corpus has 164 tokens", {"size": "25"}),
    ],
    ids=["two files", "one file", "tails", "short", "few"],
)
def test_a_share_that_cannot_be_reached(tmp_path, files, changes, reason, remedy):
    tokens = write_tokens(to_uri(str(tmp_path)), files)
    with pytest.raises(InputError, match=reason) as caught:
        split(tokens, **changes)
    assert "\n" not in str(caught.value)
    named, share = remedy_of(str(caught.value))
    assert named == remedy
    assert split(tokens, **{**changes, **named}).share == pytest.approx(share, abs=0.0006)


def test_equal_documents_that_are_too_many_for_one_side(tmp_path):
    tokens = write_tokens(to_uri(str(tmp_path)), {"a.txt": [100] * 900}, repeats=300)
    found = split(tokens, split="hash")
    assert found.share == pytest.approx(1 / 3, abs=0.01)
    assert remedy_of(found.note)[0] == {"split": "block"}


def test_a_text_that_no_setting_can_split(tmp_path):
    tokens = write_tokens(to_uri(str(tmp_path)), {"a.txt": [1]})
    with pytest.raises(InputError, match="give more text"):
        split(tokens)


one_giant = st.builds(
    lambda size, before, giant, after: [size] * before + [giant] + [size] * after,
    st.integers(20, 400), st.integers(0, 80), st.integers(5_000, 400_000), st.integers(0, 80),
)  # fmt: skip
many_tiny = st.builds(lambda count, size: [size] * count, st.integers(1, 2000), st.integers(1, 60))
powers = st.builds(
    lambda seed, count: (20 * np.random.default_rng(seed).pareto(0.8, count) + 1).clip(1, 300_000).astype(int).tolist(),
    st.integers(0, 2**32), st.integers(1, 400),
)  # fmt: skip
books = st.integers(1_000, 60_000).map(lambda size: [size])
corpora = st.one_of(
    st.lists(one_giant | many_tiny | powers, min_size=1, max_size=5),
    st.builds(lambda size, count: [size] * count, books, st.integers(1, 14)),
    st.builds(lambda size, count: [size] * count, many_tiny, st.integers(1, 30)),
)


@settings(max_examples=15)
@given(
    corpus=corpora,
    changes=st.fixed_dictionaries(
        {
            "split": st.sampled_from(METHODS),
            "over": st.sampled_from(["stream", "document"]),
            "last": st.sampled_from(["drop", "shift"]),
            "valid_fraction": st.sampled_from([0.02, 0.1, 0.2, 0.5, 0.85]),
            "seed": st.integers(0, 100),
            "overlap": st.sampled_from([0, 5, 15]),
        }
    ),
)
def test_any_text(tmp_path_factory, corpus, changes):
    folder = to_uri(str(tmp_path_factory.mktemp("tokens")))
    tokens = write_tokens(join(folder, "a"), named_files(corpus))
    fraction = changes["valid_fraction"]
    try:
        found = split(tokens, **changes)
    except InputError as error:
        found, message = None, str(error)
    else:
        message = found.note
        assert is_near(found, fraction) == (not message)
    if message and not message.endswith("; give more text"):
        named, promised = remedy_of(message)
        other = split(tokens, **{**changes, **named})
        assert is_near(other, float(named.get("valid_fraction", fraction)))
        assert other.share == pytest.approx(promised, abs=0.0006)
    total = sum(map(sum, corpus))
    is_free = changes["split"] in ("auto", "block", "hash") and changes["over"] == "stream"
    if is_free and min(fraction, 1 - fraction) * total > 3000:
        assert not message  # a side has 3,000 tokens, which are 45 pieces of four gaps: enough for every text
    if found is None:
        return
    placed = sides(tokens, found)
    for parts in placed.values():
        for (_, end, valid), (begin, _, next_valid) in pairwise(parts):
            assert valid != next_valid
            assert begin - (end - 1) >= 16
    # Other shards, and another order of the files, give the same sides.
    reordered = dict(reversed(named_files(corpus).items()))
    again = write_tokens(join(folder, "b"), reordered, shard_documents=17)
    assert sides(again, split(again, **changes)) == placed


def named_files(corpus):
    return {f"{number}.txt": sizes for number, sizes in enumerate(corpus)}


@pytest.mark.parametrize("method", METHODS)
def test_files_that_are_added_move_few_documents(tmp_path, method):
    sizes = {f"{number}.txt": [200] * (300 + number % 11) for number in range(80)}
    tokens = write_tokens(join(to_uri(str(tmp_path)), "a"), sizes)
    more = write_tokens(join(to_uri(str(tmp_path)), "b"), {**sizes, "new.txt": [200] * 700})
    before, after = (sides(each, split(each, split=method)) for each in (tokens, more))
    moved = sum(before[key] != after[key] for key in before)
    assert moved <= 0.05 * len(before)


def test_the_draws_are_measured_without_holding_the_documents(tmp_path, monkeypatch):
    """Tasks with one shard each give the same split as one task."""
    tokens = write_tokens(to_uri(str(tmp_path)), {"a.txt": [50, 700, 30_000, 20] * 20}, shard_documents=3)
    one = split(tokens)
    monkeypatch.setattr("jobs.datasets.shards.MAX_RESULT_BYTES", 1)
    many = split(tokens)
    assert (many.rule, many.plans) == (one.rule, one.plans)
