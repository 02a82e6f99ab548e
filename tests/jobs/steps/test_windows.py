"""The windows step after the tokenize step, on real text, on a local disk and on S3."""

import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from jobs.datasets import baselines, contamination, publish, shards, split_share, streams
from jobs.datasets.shards import TokenShard
from jobs.datasets.windows import WindowSet, num_windows
from jobs.errors import DamagedError, InputError
from jobs.lake.store import list_files, read_manifest, write_bytes, write_json
from jobs.lake.uri import join
from tests.support.datasets import PASSAGE, Pipeline, TravelEngine, write_corpus


def make(anywhere, texts=None, **settings):
    pipeline = Pipeline(anywhere, write_corpus(join(anywhere, "corpus"), texts or {"a.txt": PASSAGE * 8}), **settings)
    pipeline.tokenize()
    return pipeline


def read_side(pipeline, side):
    """Return all windows of a side, in order."""
    found = WindowSet.open(pipeline.lake, pipeline.datasets["windows"], side)
    return found.read(np.arange(found.num_windows))


def all_tokens(pipeline):
    return [TokenShard.open(pipeline.tokens.uri, entry).ids for entry in pipeline.tokens.shards]


def test_windows_of_a_text(anywhere):
    pipeline = make(anywhere, windows__overlap=7, windows__shard_tokens=500)
    stats = pipeline.windows()
    assert json.dumps(stats)
    manifest = read_manifest(pipeline.lake.dataset("windows", pipeline.datasets["windows"]))
    assert manifest.counts.items() <= stats.items()
    assert manifest.inputs == {"tokens": pipeline.datasets["tokens"]}
    assert (stats["split"], stats["size"], stats["stride"], stats["dtype"]) == ("block", 16, 9, "uint16")
    train, valid = read_side(pipeline, "train"), read_side(pipeline, "valid")
    for side, rows in (("train", train), ("valid", valid)):
        assert len(rows) == stats[f"num_{side}_windows"] == num_windows(stats[f"{side}_tokens"], 16, 9)
        assert np.array_equal(rows[1:, :8], rows[:-1, 9:])  # neighbouring windows of one stream overlap
    assert stats["train_tokens"] + stats["valid_tokens"] == sum(map(len, all_tokens(pipeline)))
    assert stats["valid_share"] == pytest.approx(0.2, abs=0.1)
    windows = [stats[f"num_{side}_windows"] for side in ("train", "valid")]
    shown = f"{windows[1] / sum(windows):.1%}"
    counts = f"{windows[0]:,} for training, {windows[1]:,} for validation"
    assert pipeline.lines[-1].startswith(f"windows: {counts} ({shown}, split by block")
    assert float(shown.removesuffix("%")) == pytest.approx(20, abs=2)  # within a tenth of windows.valid_fraction
    assert 0 <= stats["num_uncovered_tokens"] < 2 * 9
    assert stats["num_skipped_documents"] == 0
    assert stats["num_valid_documents_also_in_train"] == stats["num_valid_documents"]  # the text repeats itself
    assert [entry.name.split("-")[0] for entry in manifest.entries("valid/")] == [
        f"valid/{number:05}" for number in range(len(manifest.entries("valid/")))
    ]


@pytest.mark.parametrize("over", ["stream", "document"])
def test_the_last_window_may_be_shifted_back(local, over):
    dropped = make(local, windows__over=over).windows()
    pipeline = make(local, windows__over=over, windows__last="shift")
    stats = pipeline.windows()
    assert stats["num_uncovered_tokens"] == 0 < dropped["num_uncovered_tokens"]
    assert dropped["num_shifted_windows"] == 0 < stats["num_shifted_windows"]
    for side in ("train", "valid"):
        assert len(read_side(pipeline, side)) == stats[f"num_{side}_windows"]
    both = [sum(found[f"num_{side}_windows"] for side in ("train", "valid")) for found in (stats, dropped)]
    assert both[0] - both[1] == stats["num_shifted_windows"]


def test_contamination_and_distribution(local):
    """Each paragraph occurs eight times, so training contains those of validation; in one passage it does not."""
    stats = make(local).windows()
    assert stats["leak_ngram"] == 13
    assert stats["ngram_leak"] > 0.9
    assert stats["num_compared_ngrams"] > 100
    pipeline = make(local, {"a.txt": PASSAGE}, windows__split="tail")
    stats = pipeline.windows()
    assert stats["ngram_leak"] < 0.1
    counts = Counter(np.concatenate(all_tokens(pipeline)).tolist())
    _, share = stats["most_frequent_tokens"][0]
    assert share == pytest.approx(counts.most_common(1)[0][1] / sum(counts.values()), abs=1e-3)  # a gap is left out
    assert len(stats["most_frequent_tokens"]) == 20
    assert stats["windows_per_shard_max"] >= stats["windows_per_shard_mean"] > 0
    assert make(local, windows__leak_ngram=0).windows()["ngram_leak"] is None


def test_the_share_of_unknown_tokens(local):
    assert make(local).windows()["unknown_share"] == 0
    stats = make(local, tokenize__kind="word", tokenize__vocab_size=12).windows()
    assert dict(stats["most_frequent_tokens"])["<unk>"] == stats["unknown_share"] > 0.5


def test_the_sample_of_ngrams_is_bounded(local, monkeypatch):
    monkeypatch.setattr(contamination, "MAX_COMPARED_NGRAMS", 50)
    stats = make(local).windows()
    assert 0 < stats["num_compared_ngrams"] < 200
    assert stats["ngram_leak"] > 0.9


def test_baselines(local):
    pipeline = make(local)
    stats = pipeline.windows()
    sides = {}
    for side in ("train", "valid"):
        rows = read_side(pipeline, side)
        sides[side] = Counter(rows[:, :-1].ravel().tolist() + rows[-1:, -1].tolist())
        tail = stats[f"{side}_tokens"] - sum(sides[side].values())
        assert 0 <= tail < 16
    total, vocab_size = sum(sides["train"].values()), stats["vocab_size"]
    loss = -sum(n * math.log((sides["train"][token] + 1) / (total + vocab_size)) for token, n in sides["valid"].items())
    assert stats["unigram_loss"] == pytest.approx(loss / sum(sides["valid"].values()), abs=0.02)
    assert 0.8 * stats["unigram_loss"] < stats["token_entropy"] <= stats["unigram_loss"]
    (token, _), *_ = sides["train"].most_common()
    assert stats["unigram_accuracy"] == pytest.approx(sides["valid"][token] / sum(sides["valid"].values()), abs=0.01)


@pytest.mark.parametrize("over", ["stream", "document"])
def test_the_bigram_loss_equals_that_of_plain_counts(local, over):
    """The pairs of both sides are counted here without samples, and the strength is searched again."""
    pipeline = make(local, windows__size=4, windows__over=over)
    stats = pipeline.windows()
    sides = read_streams(pipeline, over)
    pairs = {side: Counter(pair for stream in sides[side] for pair in pairwise(stream)) for side in sides}
    firsts = Counter(first for first, _ in pairs["train"].elements())
    tokens = Counter(token for stream in sides["train"] for token in stream)

    def loss(some, strength, out):
        total = 0.0
        for (first, second), n in some.items():
            unigram = (tokens[second] + 1 - out) / (tokens.total() - out + stats["vocab_size"])
            seen = pairs["train"][first, second] - out
            total -= n * math.log((seen + strength * unigram) / (firsts[first] - out + strength))
        return total / some.total()

    strength = min((2.0**i for i in range(21)), key=lambda strength: loss(pairs["train"], strength, 1))
    assert stats["bigram_loss"] == pytest.approx(loss(pairs["valid"], strength, 0))
    assert stats["bigram_loss"] < stats["unigram_loss"] - 0.5


def read_streams(pipeline, over):
    """Return the tokens of each side as one stream for each token shard or document."""
    rule = split_share.find_split(pipeline.tokens, pipeline.config.windows, TravelEngine()).rule
    found = {"train": [], "valid": []}
    for entry in pipeline.tokens.shards:
        for side in found:
            stream = streams.open_stream(entry, rule, side)
            if not stream.num_tokens:
                continue
            ends = [] if over == "stream" else np.cumsum(stream.lengths)[:-1]
            found[side] += [part.tolist() for part in np.split(stream.read(0, stream.num_tokens), ends)]
    return found


def test_a_sample_of_pairs_gives_about_the_same_baseline(local, monkeypatch):
    whole = make(local).windows()["bigram_loss"]
    monkeypatch.setattr(baselines, "MAX_SAMPLED_PAIRS", 1000)
    assert make(f"{local}/other").windows()["bigram_loss"] == pytest.approx(whole, abs=0.15)


@pytest.mark.parametrize("method", ["auto", "source", "block", "hash", "tail"])
def test_each_document_is_on_one_side(local, method):
    texts = {f"{number:02}.txt": f"Text {number}.\n\n{PASSAGE.decode()}".encode() for number in range(24)}
    pipeline = make(local, texts, windows__split=method, tokenize__vocab_size=300)
    stats = pipeline.windows()
    tokens = np.concatenate(all_tokens(pipeline))
    assert stats["split"] == ("source" if method == "auto" else method)
    assert stats["train_tokens"] + stats["valid_tokens"] == len(tokens)
    assert stats["valid_share"] == pytest.approx(0.2, abs=0.2 if method == "hash" else 0.1)  # documents repeat
    assert stats["num_train_documents"] + stats["num_valid_documents"] == np.sum(tokens == 256)
    if method == "hash":
        assert stats["num_valid_documents_also_in_train"] == 0


def test_windows_inside_documents(local):
    texts = {"a.txt": b"\n\n".join(b"%d short" % number for number in range(50)) + b"\n\n" + PASSAGE * 8}
    pipeline = make(local, texts, windows__over="document", windows__shard_tokens=100)
    stats = pipeline.windows()
    for side in ("train", "valid"):
        rows = read_side(pipeline, side)
        assert len(rows) == stats[f"num_{side}_windows"] > 0
        assert not np.any(rows[:, :-1] == 256)  # end-of-text occurs only as the last target
    lengths = np.concatenate([np.diff(np.flatnonzero(ids == 256), prepend=-1) for ids in all_tokens(pipeline)])
    assert stats["num_skipped_documents"] == np.sum(lengths < 17) > 50
    kept = lengths[lengths >= 17]
    assert stats["train_tokens"] + stats["valid_tokens"] == kept.sum()
    assert stats["num_train_windows"] + stats["num_valid_windows"] == np.sum((kept - 17) // 16 + 1)
    assert stats["num_uncovered_tokens"] == np.sum((kept - 17) % 16)


@pytest.mark.parametrize("method", ["auto", "hash", "tail"])
@pytest.mark.parametrize("over", ["stream", "document"])
def test_one_document_without_a_border_is_cut_with_a_gap(local, method, over):
    """Each word occurs once, so a token says where in the text it stands."""
    words = [f"w{number:05}" for number in range(9000)]
    pipeline = make(
        local, {"a.txt": " ".join(words).encode()}, tokenize__kind="word", tokenize__vocab_size=10_000,
        windows__split=method, windows__over=over,
    )  # fmt: skip
    stats = pipeline.windows()
    tokenizer = pipeline.tokens.read_tokenizer()
    places = {int(tokenizer.encode(word)[0]): place for place, word in enumerate(words)}
    found = {side: read_side(pipeline, side) for side in ("train", "valid")}
    at = {side: sorted({places[token] for token in set(rows.ravel().tolist()) - {0}}) for side, rows in found.items()}
    assert len(found["valid"]) / sum(map(len, found.values())) == stats["valid_window_share"]
    assert stats["valid_window_share"] == pytest.approx(0.2, abs=0.02)
    # No window of the text, which has 17 words, and no 13-gram has words of both sides.
    assert min(abs(place - np.array(at["train"])).min() for place in at["valid"]) > 16
    for rows in found.values():  # each window is a run of words; the end-of-text token stands at a cut
        for row in rows.tolist():
            assert all(places[b] - places[a] == 1 for a, b in pairwise(row) if a and b)
    assert stats["num_cut_documents"] == 1
    assert stats["ngram_leak"] == 0
    num_cuts = stats["num_train_documents"] + stats["num_valid_documents"] - 1
    assert stats["num_gap_tokens"] == 16 * num_cuts
    assert stats["train_tokens"] + stats["valid_tokens"] + stats["num_gap_tokens"] - num_cuts == 9001
    sizes = {side: 7 * stats[f"{side}_tokens"] for side in found}
    for side, size in sizes.items():
        assert stats[f"{side}_bytes"] == pytest.approx(size, rel=0.02)
    assert stats["train_bytes"] + stats["valid_bytes"] + stats["num_gap_bytes"] == 7 * 9000 - 1
    assert "1 document cut" in pipeline.lines[-1]


def test_an_existing_dataset_is_reused(anywhere, monkeypatch):
    pipeline = make(anywhere)
    stats = pipeline.windows()
    before = list_files(join(anywhere, "datasets"))
    used = {**pipeline.datasets, "embeddings": "0123"}
    write_json(pipeline.run.datasets, used)
    again = pipeline.windows()
    assert again["reused"]
    assert pipeline.datasets == used
    assert {**again, "reused": False}.items() <= stats.items()
    assert list_files(join(anywhere, "datasets")) == before
    monkeypatch.setattr(publish, "find_stats", lambda folder_uri: None)
    assert not pipeline.windows()["reused"]  # another attempt published it first: still a success
    assert read_side(pipeline, "valid").shape == (stats["num_valid_windows"], 17)


def test_a_truncated_token_shard_is_refused(anywhere):
    pipeline = make(anywhere)
    folder = pipeline.lake.dataset("tokens", pipeline.datasets["tokens"])
    entry = read_manifest(folder).entries("shards/")[1]
    write_bytes(join(folder, entry.name), b"x" * (entry.size - 8))
    with pytest.raises(DamagedError, match="the manifest says"):
        pipeline.windows()
    assert list_files(join(anywhere, "datasets", "windows")) == []


@pytest.mark.parametrize(
    ("texts", "settings", "reason"),
    [
        ({"a.txt": b"A few words.\n\nA few more."}, {}, r"training part has \d+ tokens .*windows.size=16 needs 17"),
        (
            {"a.txt": PASSAGE},
            {"windows__size": 900},
            r"corpus too short: its (training|validation) part.*; set windows.size=\d+, which gives",
        ),
        (
            {"a.txt": b"A few words.\n\n" * 99},
            {"windows__over": "document"},
            r"none of its 99 documents .*; set windows.over=stream, which gives 2",
        ),
        ({"a.txt": PASSAGE}, {"windows__split": "source"}, "keeps each file whole; set windows.split=block, which"),
    ],
)
def test_a_corpus_that_is_too_short_is_refused(local, texts, settings, reason):
    pipeline = make(local, texts, **settings)
    with pytest.raises(InputError, match=reason) as caught:
        pipeline.windows()
    assert "\n" not in str(caught.value)
    assert list_files(join(local, "datasets", "windows")) == []
    assert "windows" not in pipeline.datasets


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["block", "source", "hash"])
def test_the_split_of_few_documents_is_drawn_until_both_sides_have_windows(local, method, seed):
    pipeline = make(local, {"a.txt": PASSAGE, "b.txt": PASSAGE}, windows__split=method, windows__seed=seed)
    stats = pipeline.windows()
    assert stats["num_train_windows"] > 0
    assert stats["num_valid_windows"] > 0


def test_no_tokens_yet(local):
    with pytest.raises(InputError, match="run its tokenize step first"):
        Pipeline(local, "corpus").windows()


def test_many_shards_in_few_tasks(local, monkeypatch):
    """If the driver cannot hold the counts of each shard, tasks take several shards, and the results are equal."""
    text = b"\n\n".join(b"Document number %d has a few words." % number for number in range(2000))
    pipeline = make(local, {"a.txt": text})
    stats = pipeline.windows()
    monkeypatch.setattr(shards, "MAX_RESULT_BYTES", 3 * 2 * 8 * 400)
    monkeypatch.setattr(split_share, "MAX_COMPARED_DOCUMENTS", 50)
    monkeypatch.setattr(publish, "find_stats", lambda folder_uri: None)
    bounded = pipeline.windows()
    differ = {key for key in stats if stats[key] != bounded[key]} - {"tokens_per_second"}
    assert differ == {"num_compared_valid_documents"}
    assert 0 < bounded["num_compared_valid_documents"] < stats["num_compared_valid_documents"]
