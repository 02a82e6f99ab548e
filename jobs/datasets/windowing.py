"""Makes a dataset of windows: splits the documents, writes the windows of both sides, and computes statistics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from jobs.config import WindowsConfig
from jobs.datasets.baselines import bigram_loss, entropy, unigram_accuracy, unigram_loss
from jobs.datasets.contamination import measure_contamination
from jobs.datasets.fixed_split import FixedSplit
from jobs.datasets.publish import MadeDataset
from jobs.datasets.shards import group_shards
from jobs.datasets.split_share import SplitStreams, count_fixed, find_split
from jobs.datasets.streams import write_window_shard
from jobs.datasets.tokens import TokensDataset
from jobs.datasets.windows import SIDES
from jobs.engine.base import Engine
from jobs.lake.manifest import FileEntry
from jobs.metrics.stats import WindowsStats
from jobs.tokenizer.tokenizer import Tokenizer

_NUM_MOST_FREQUENT = 20


def make_windows(
    folder_uri: str, tokens: TokensDataset, settings: WindowsConfig, engine: Engine, decided: FixedSplit | None = None
) -> MadeDataset:
    """Write the windows of a dataset of tokens below `folder_uri`.

    `decided` is the fixed split of the pipeline. If it is None, find a split first.
    """
    started = time.perf_counter()
    groups = group_shards(tokens.shards, len(SIDES) * 8 * tokens.vocab_size)
    streams = count_fixed(tokens, settings, decided, engine) if decided else find_split(tokens, settings, engine)
    write = partial(write_window_shard, folder_uri=folder_uri, rule=streams.rule)
    files = engine.map(write, [plan for side in SIDES for plan in streams.plans[side]], "write windows")
    tokenizer = tokens.read_tokenizer()
    num_valid_tokens = streams.tallies["valid"].num_tokens
    stats: WindowsStats = {
        **_statistics(tokens, streams),
        "end_of_text": tokenizer.end_of_text,
        "bigram_loss": bigram_loss(tokens.shards, streams.rule, streams.tallies, engine),
        **_distribution(files, streams, tokenizer),
        "num_left_out_documents": decided.num_left_out if decided else 0,
        **measure_contamination(groups, streams.rule, num_valid_tokens, settings.leak_ngram, engine),
    }
    tokens_per_second = tokens.counts["num_tokens"] / (time.perf_counter() - started)
    return MadeDataset(files, stats, {"tokens": tokens.fingerprint}, {"tokens_per_second": tokens_per_second})


def _statistics(tokens: TokensDataset, streams: SplitStreams) -> WindowsStats:
    rule, train, valid = streams.rule, streams.tallies["train"], streams.tallies["valid"]
    num_shifted, num_uncovered = _count_uncovered(streams)
    return {
        "size": rule.size,
        "stride": rule.stride,
        "over": rule.over,
        "last": rule.last,
        "split": rule.split.method,
        "split_draw": rule.split.draw,
        "split_threshold": rule.split.threshold,
        "split_note": streams.note,
        "dtype": tokens.counts["dtype"],
        "vocab_size": rule.vocab_size,
        "num_train_windows": streams.num_windows("train"),
        "num_valid_windows": streams.num_windows("valid"),
        "num_train_documents": train.num_documents,
        "num_valid_documents": valid.num_documents,
        "num_skipped_documents": train.num_skipped + valid.num_skipped,
        "num_cut_documents": train.num_cut_documents,
        "num_gap_tokens": train.num_gap_tokens + valid.num_gap_tokens,
        "num_gap_bytes": train.num_gap_bytes + valid.num_gap_bytes,
        "train_tokens": train.num_tokens,
        "valid_tokens": valid.num_tokens,
        "num_uncovered_tokens": num_uncovered,
        "num_shifted_windows": num_shifted,
        "train_bytes": train.num_bytes,
        "valid_bytes": valid.num_bytes,
        "valid_window_share": streams.share,
        "valid_share": valid.num_bytes / (train.num_bytes + valid.num_bytes),
        "unigram_loss": unigram_loss(train.token_counts, valid.token_counts),
        "unigram_accuracy": unigram_accuracy(train.token_counts, valid.token_counts),
        "token_entropy": entropy(train.token_counts + valid.token_counts),
        "num_compared_valid_documents": len(valid.hashes),
        "num_valid_documents_also_in_train": int(np.isin(valid.hashes, train.hashes).sum()),
    }


def _count_uncovered(streams: SplitStreams) -> tuple[int, int]:
    """Return the number of windows that are shifted back, and the number of tokens that are in no window."""
    rule = streams.rule
    num_shifted = num_uncovered = 0
    for side, counted in streams.tallies.items():
        num_streams = 1 if rule.over == "stream" else counted.num_documents
        in_steps = streams.num_windows(side) - counted.num_shifted
        # Neighbouring windows share tokens; windows of different documents share none.
        left = counted.num_tokens - in_steps * rule.stride - num_streams * (rule.size + 1 - rule.stride)
        if rule.over == "stream" and left < 0:  # the last window was shifted back over covered tokens
            num_shifted += 1
        elif rule.last == "drop":
            num_uncovered += left
        num_shifted += counted.num_shifted
    return num_shifted, num_uncovered


def _distribution(files: Sequence[FileEntry], streams: SplitStreams, tokenizer: Tokenizer) -> WindowsStats:
    """Return the windows per shard, the share of unknown tokens, and the most frequent tokens with their shares."""
    per_shard = [file.counts["windows"] for file in files]
    counts = streams.tallies["train"].token_counts + streams.tallies["valid"].token_counts
    most_frequent = [int(token) for token in np.argsort(-counts, kind="stable")[:_NUM_MOST_FREQUENT] if counts[token]]
    shares = counts / counts.sum()
    return {
        "windows_per_shard_max": max(per_shard),
        "windows_per_shard_mean": sum(per_shard) / len(per_shard),
        "unknown_share": 0.0 if tokenizer.unknown_id is None else float(shares[tokenizer.unknown_id]),
        "most_frequent_tokens": [[tokenizer.decode([token]), float(shares[token])] for token in most_frequent],
    }
