"""Step 2: from tokens to windows of training and validation. Publishes ``<lake>/datasets/windows/<fingerprint>/``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np

from jobs.config import Config, WindowsConfig
from jobs.datasets.baselines import entropy, unigram_accuracy, unigram_loss
from jobs.datasets.bigram import Bigram, Pairs, count_pairs, sample_pairs
from jobs.datasets.contamination import find_ngrams, sample_ngrams
from jobs.datasets.dataset import existing_stats, publish_dataset, read_tokenizer, used_datasets
from jobs.datasets.split import SplitRule
from jobs.datasets.streams import SideTally, StreamRule, WindowShardPlan, plan_window_shards, tally, write_window_shard
from jobs.datasets.windows import SIDES, Side
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.fingerprint import code_version, fingerprint
from jobs.lake.layout import Lake, Run
from jobs.lake.store import FileEntry, Manifest, read_manifest, write_json
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_MAX_COUNT_BYTES = 64 * 2**20
_MAX_COMPARED_DOCUMENTS = 2**20
_MAX_COMPARED_NGRAMS = 2**20
_MAX_SAMPLED_PAIRS = 2**17
_MAX_BIGRAM_TOKENS = 2**26
_MOST_FREQUENT = 20
_MAX_DRAWS = 16


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make the windows dataset of a run, or find it made; return its statistics.

    Raises:
        InputError: if there are no tokens yet, or a side has too few for one window; no dataset exists then.
    """
    lake = Lake(run.lake_uri)
    tokens = _tokens(run, lake)
    name = fingerprint(
        kind="windows",
        tokens=tokens.fingerprint,
        settings={**config.windows.model_dump(), "stride": config.windows.stride},  # computed in `jobs.config`, a leaf
        code=code_version(__name__),
    )
    found = existing_stats(lake.windows(name))
    stats = {**found, "reused": True} if found else _make(name, lake, tokens, config.windows, engine)
    progress(
        f"windows: {stats['num_train_windows']:,} for training, {stats['num_valid_windows']:,} for validation"
        f" (split by {stats['split']}), unigram loss {stats['unigram_loss']:.3f}, bigram {stats['bigram_loss']:.3f}"
        f"{', made before' if found else ''}"
    )
    write_json(run.datasets, {**used_datasets(run), "windows": name})
    return stats


def _tokens(run: Run, lake: Lake) -> Manifest:
    name = used_datasets(run).get("tokens")
    manifest = read_manifest(lake.tokens(name)) if name else None
    if manifest is None:
        raise InputError(f"{run.uri}: this run has no tokens yet; run its tokenize step first")
    return manifest


@dataclass(frozen=True)
class _Sides:
    """A split under which each side has windows: the rule, what each side has, and what is to be written."""

    rule: StreamRule
    tallies: dict[Side, SideTally]
    plans: dict[Side, list[WindowShardPlan]]

    def num_windows(self, side: Side) -> int:
        """The number of windows of a side."""
        return sum(plan.num_windows for plan in self.plans[side])


def _make(name: str, lake: Lake, tokens: Manifest, settings: WindowsConfig, engine: Engine) -> dict[str, Any]:
    started = time.perf_counter()
    folder_uri = lake.windows(name)
    sides = _split(lake, tokens, settings, engine)
    write = partial(write_window_shard, folder_uri=folder_uri, rule=sides.rule)
    files = engine.map(write, [plan for side in SIDES for plan in sides.plans[side]], "write windows")
    tokenizer = read_tokenizer(lake, tokens.fingerprint)
    stats = {
        **_stats(tokens, sides),
        "end_of_text": tokenizer.end_of_text,
        "bigram_loss": _bigram_loss(tokens, sides, engine),
        **_distribution(files, sides, tokenizer),
        **_leak(tokens, sides, settings.leak_ngram, engine),
    }
    publish_dataset(folder_uri, Manifest("windows", name, tuple(files), stats, {"tokens": tokens.fingerprint}), stats)
    tokens_per_second = tokens.counts["num_tokens"] / (time.perf_counter() - started)
    return {**stats, "reused": False, "tokens_per_second": tokens_per_second}


def _split(lake: Lake, tokens: Manifest, settings: WindowsConfig, engine: Engine) -> _Sides:
    """Split the documents. Where there are so few that a side got none, the split is drawn again."""
    entries = tokens.entries("shards/")
    rule = _stream_rule(lake, tokens, settings)
    groups = _groups(entries, rule.vocab_size)
    # The tail is no draw, and a single file is on one side whatever is drawn.
    fixed = rule.split.method == "tail" or (rule.split.method == "source" and len(tokens.inputs["files"]) == 1)
    for draw in range(1 if fixed else _MAX_DRAWS):
        rule = replace(rule, split=replace(rule.split, draw=draw))
        done = engine.map(partial(tally, rule=rule), groups, "count the tokens of each side")
        tallies = {side: reduce(add, (counted[side] for counted in done)) for side in SIDES}
        plans = {
            side: plan_window_shards(side, entries, tallies[side].units, rule, settings.shard_tokens) for side in SIDES
        }
        lacking = [side for side in SIDES if not plans[side]]
        if not lacking:
            return _Sides(rule, tallies, plans)
        log.info("draw %d of the split by %s leaves a side without a window", draw, rule.split.method)
    raise InputError(_too_short(lacking[0], tallies, settings))


def _stream_rule(lake: Lake, tokens: Manifest, settings: WindowsConfig) -> StreamRule:
    sources = [(file["name"], file["text_bytes"]) for file in tokens.inputs["files"]]
    return StreamRule(
        tokens_uri=lake.tokens(tokens.fingerprint),
        split=SplitRule.choose(settings, sources),
        size=settings.size,
        stride=settings.stride,
        over=settings.over,
        last=settings.last,
        vocab_size=tokens.counts["vocab_size"],
        # One document in a power of two, so that the driver compares a bounded number of them.
        hash_mask=(1 << (tokens.counts["num_documents"] // _MAX_COMPARED_DOCUMENTS).bit_length()) - 1,
    )


def _groups(entries: Sequence[FileEntry], vocab_size: int) -> list[Sequence[FileEntry]]:
    """Token shards in as many tasks as the driver can hold the token counts of."""
    most = max(1, _MAX_COUNT_BYTES // (len(SIDES) * 8 * vocab_size))
    size = -(-len(entries) // most)
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _too_short(side: Side, tallies: Mapping[Side, SideTally], settings: WindowsConfig) -> str:
    """What is wrong where a side has not a single window, and what to do."""
    name, tally = {"train": "training", "valid": "validation"}[side], tallies[side]
    needed = f"a window of windows.size={settings.size} needs {settings.size + 1}"
    if settings.over == "document":
        return (
            f"corpus too short: none of the {tally.num_skipped} {name} documents has enough tokens, {needed};"
            " set a smaller windows.size, or windows.over=stream"
        )
    if not tally.num_documents:
        whole = reduce(add, tallies.values())
        return (
            f"corpus too short: its {name} part has no document: there are {whole.num_documents}, of"
            f" {whole.num_tokens} tokens, and none is ever divided; set tokenize.documents=line, another"
            " windows.split, or give more text"
        )
    return (
        f"corpus too short: its {name} part has {tally.num_tokens} tokens in {tally.num_documents} documents, {needed};"
        " give more text, a smaller windows.size, or another windows.split or windows.valid_fraction"
    )


def _stats(tokens: Manifest, sides: _Sides) -> dict[str, Any]:
    rule, train, valid = sides.rule, sides.tallies["train"], sides.tallies["valid"]
    num_windows = {side: sides.num_windows(side) for side in SIDES}
    num_shifted, uncovered = 0, 0
    for side, counted in sides.tallies.items():
        num_streams = 1 if rule.over == "stream" else counted.num_documents
        in_steps = num_windows[side] - counted.num_shifted
        # Neighbouring windows share tokens; those of other documents share none.
        left = counted.num_tokens - in_steps * rule.stride - num_streams * (rule.size + 1 - rule.stride)
        if rule.over == "stream" and left < 0:  # the last window is shifted back over what the others have
            num_shifted += 1
        elif rule.last == "drop":
            uncovered += left
        num_shifted += counted.num_shifted
    return {
        "size": rule.size,
        "stride": rule.stride,
        "over": rule.over,
        "last": rule.last,
        "split": rule.split.method,
        "split_draw": rule.split.draw,
        "dtype": tokens.counts["dtype"],
        "vocab_size": rule.vocab_size,
        "num_train_windows": num_windows["train"],
        "num_valid_windows": num_windows["valid"],
        "num_train_documents": train.num_documents,
        "num_valid_documents": valid.num_documents,
        "num_skipped_documents": train.num_skipped + valid.num_skipped,
        "train_tokens": train.num_tokens,
        "valid_tokens": valid.num_tokens,
        "num_uncovered_tokens": uncovered,
        "num_shifted_windows": num_shifted,
        "train_bytes": train.num_bytes,
        "valid_bytes": valid.num_bytes,
        "valid_share": valid.num_bytes / (train.num_bytes + valid.num_bytes),
        "unigram_loss": unigram_loss(train.token_counts, valid.token_counts),
        "unigram_accuracy": unigram_accuracy(train.token_counts, valid.token_counts),
        "token_entropy": entropy(train.token_counts + valid.token_counts),
        "num_compared_valid_documents": len(valid.hashes),
        "num_valid_documents_also_in_train": int(np.isin(valid.hashes, train.hashes).sum()),
    }


def _bigram_loss(tokens: Manifest, sides: _Sides, engine: Engine) -> float:
    """The loss of the bigram baseline, which is fitted on evenly chosen shards where the training text is long."""
    entries, rule = tokens.entries("shards/"), sides.rule
    entries = entries[:: -(-sides.tallies["train"].num_tokens // _MAX_BIGRAM_TOKENS)]
    sampled = {}
    for side in SIDES:
        every = -(-sides.tallies[side].num_tokens // _MAX_SAMPLED_PAIRS)
        sample = partial(sample_pairs, rule=rule, side=side, every=every)
        sampled[side] = Pairs.of(engine.map(sample, _groups(entries, _MAX_SAMPLED_PAIRS), f"sample pairs of {side}"))
    wanted = np.union1d(sampled["train"].keys, sampled["valid"].keys)
    count = partial(count_pairs, rule=rule, wanted=wanted)
    counted = engine.map(count, _groups(entries, len(wanted) + rule.vocab_size), "count pairs of training")
    pairs, firsts = (sum(counts) for counts in zip(*counted, strict=True))
    bigram = Bigram(Pairs(wanted, pairs), firsts, sides.tallies["train"].token_counts)
    return bigram.loss(sampled["valid"], sampled["train"])


def _distribution(files: Sequence[FileEntry], sides: _Sides, tokenizer: Tokenizer) -> dict[str, Any]:
    """How even shards are, which tokens are the most frequent (text and share), and how many stand for the unknown."""
    per_shard = [file.counts["windows"] for file in files]
    counts = sides.tallies["train"].token_counts + sides.tallies["valid"].token_counts
    most = [int(token) for token in np.argsort(-counts, kind="stable")[:_MOST_FREQUENT] if counts[token]]
    shares = counts / counts.sum()
    return {
        "windows_per_shard_max": max(per_shard),
        "windows_per_shard_mean": sum(per_shard) / len(per_shard),
        "unknown_share": 0.0 if tokenizer.unknown_id is None else float(shares[tokenizer.unknown_id]),
        "most_frequent_tokens": [[tokenizer.decode([token]), float(shares[token])] for token in most],
    }


def _leak(tokens: Manifest, sides: _Sides, n: int, engine: Engine) -> dict[str, Any]:
    """Which share of the n-grams of validation stands in the training text too; None if there are none."""
    if not n:
        return {"leak_ngram": 0, "ngram_leak": None, "num_compared_ngrams": 0}
    groups = _groups(tokens.entries("shards/"), sides.rule.vocab_size)
    mask = (1 << (sides.tallies["valid"].num_tokens // _MAX_COMPARED_NGRAMS).bit_length()) - 1
    sample = partial(sample_ngrams, rule=sides.rule, n=n, mask=mask)
    sampled = np.concatenate(engine.map(sample, groups, "sample n-grams of validation"))
    wanted, counts = np.unique(sampled, return_counts=True)
    find = partial(find_ngrams, rule=sides.rule, n=n, mask=mask, wanted=wanted)
    found = np.isin(wanted, np.concatenate(engine.map(find, groups, "look for them in training")))
    share = float(counts[found].sum() / counts.sum()) if len(wanted) else None
    return {"leak_ngram": n, "ngram_leak": share, "num_compared_ngrams": len(sampled)}
