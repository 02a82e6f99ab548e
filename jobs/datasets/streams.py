"""Writes window shards from token shards: the documents of a side, in order, are one stream that is divided anew.

There are two passes, and no task holds more than a few shards. First, `tally` counts what token shards contribute to
each side. From the counts, `plan_window_shards` derives which slices of token shards each window shard needs. Then
`write_window_shard` writes one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from itertools import accumulate
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.datasets.shards import ShardSlice, TokenShard, arrow_file, slice_shards
from jobs.datasets.split import SplitRule
from jobs.datasets.windows import SIDES, Last, Side, num_tokens_of, num_windows
from jobs.lake.manifest import FileEntry
from jobs.lake.store import write_shard
from jobs.tokenizer.tokenizer import TokenIds


@dataclass(frozen=True)
class StreamRule:
    """The rule that makes streams and windows of token shards."""

    tokens_uri: str
    """The folder of the dataset of tokens."""
    split: SplitRule
    size: int
    stride: int
    over: str
    last: Last
    vocab_size: int
    hash_mask: int
    """Documents whose hash has none of these bits are compared to find duplicates: all documents, or a sample."""


@dataclass(frozen=True)
class SideTally:
    """Counts of what some token shards contribute to the stream of one side."""

    units: list[int]
    """The number of units of each shard: tokens, or windows if windows lie inside documents."""
    num_documents: int
    num_skipped: int
    """Documents too short for a window inside them; they are not in the stream."""
    num_shifted: int
    """Windows that were shifted back to the end of a document."""
    num_tokens: int
    num_bytes: int
    token_counts: npt.NDArray[np.int64]
    """The number of occurrences of each token of the vocabulary."""
    hashes: npt.NDArray[np.uint64]
    """The hashes of the documents that are compared to find duplicates."""

    def __add__(self, after: SideTally) -> SideTally:
        """Return the tally of these shards and of the shards after them."""
        added = (field.name for field in fields(self) if field.name != "hashes")
        sums = {name: getattr(self, name) + getattr(after, name) for name in added}
        return SideTally(**sums, hashes=np.concatenate([self.hashes, after.hashes]))


@dataclass(frozen=True)
class WindowShardPlan:
    """A window shard that is to be written, and the slices of token shards that it is made of."""

    side: Side
    number: int
    num_windows: int
    slices: list[ShardSlice]


class _Stream:
    """The documents of one token shard that are in the stream of one side."""

    def __init__(self, shard: TokenShard, rule: StreamRule, side: Side) -> None:
        on_side = rule.split.is_valid(shard) == (side == "valid")
        self.kept = on_side if rule.over == "stream" else on_side & (shard.lengths > rule.size)
        """A mask of the documents of the shard that are in the stream."""
        self.num_skipped = int(on_side.sum() - self.kept.sum())
        self.lengths = shard.lengths[self.kept]
        """The number of tokens of each document in the stream."""
        self.ids: TokenIds = shard.ids[np.repeat(self.kept, shard.lengths)]
        self._rule = rule

        self.room = self.lengths - (rule.size + 1)
        """By how many tokens the first window of each document could be moved."""
        self.has_shifted = (self.room % rule.stride > 0) & (rule.last == "shift")
        """Whether the last window of each document is shifted back."""

    def windows_in_documents(self) -> npt.NDArray[np.int64]:
        """Return the number of windows inside each document."""
        return np.asarray(self.room // self._rule.stride + 1 + self.has_shifted)

    def cut(self, begin: int, end: int) -> tuple[TokenIds, npt.NDArray[np.int64]]:
        """Return the tokens of the units [begin, end), and the starts of windows if these lie inside documents."""
        if self._rule.over == "stream":
            return self.ids[begin:end], np.zeros(0, np.int64)
        windows = self.windows_in_documents()
        index = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
        in_document = np.minimum(index * self._rule.stride, np.repeat(self.room, windows))
        starts = (np.repeat(np.cumsum(self.lengths) - self.lengths, windows) + in_document)[begin:end]
        return self.ids[starts[0] : starts[-1] + self._rule.size + 1], starts - starts[0]


def tally(entries: Sequence[FileEntry], *, rule: StreamRule) -> dict[Side, SideTally]:
    """Count what consecutive token shards contribute to each side."""
    return {side: reduce(add, (_tally(entry, rule, side) for entry in entries)) for side in SIDES}


def plan_window_shards(
    side: Side, entries: Sequence[FileEntry], units: Sequence[int], rule: StreamRule, shard_tokens: int
) -> list[WindowShardPlan]:
    """Return the plans of the window shards of one side, each of about `shard_tokens` tokens of the stream.

    `units` holds the number of units of the side in each token shard.
    """
    in_stream = rule.over == "stream"
    num_units = sum(units)
    total = num_windows(num_units, rule.size, rule.stride, rule.last) if in_stream else num_units
    per_shard = max(1, shard_tokens // rule.stride)
    ends = list(accumulate(units))
    plans = []
    for number, first in enumerate(range(0, total, per_shard)):
        windows = min(per_shard, total - first)
        begin, end = first, first + windows
        if in_stream:
            # Only the last window of the stream can be shifted back; it may be alone in its shard.
            end = min(first * rule.stride + num_tokens_of(windows, rule.size, rule.stride), num_units)
            begin = min(first * rule.stride, end - rule.size - 1)
        plans.append(WindowShardPlan(side, number, windows, slice_shards(entries, ends, begin, end)))
    return plans


def write_window_shard(plan: WindowShardPlan, *, folder_uri: str, rule: StreamRule) -> FileEntry:
    """Write one window shard below `folder_uri`; return its entry with the counts of tokens and windows."""
    ids: list[TokenIds] = []
    starts: list[npt.NDArray[np.int64]] = []
    num_tokens = 0
    for part in plan.slices:
        stream = _Stream(TokenShard.open(rule.tokens_uri, part.entry), rule, plan.side)
        part_ids, part_starts = stream.cut(part.begin, part.end)
        ids.append(part_ids)
        starts.append(part_starts + num_tokens)
        num_tokens += len(part_ids)
    assert num_tokens < 2**32, "starts are uint32"
    explicit = window_starts(plan, rule, num_tokens) if rule.over == "stream" else np.concatenate(starts)
    columns = {"tokens": _one_list(np.concatenate(ids)), "starts": _one_list(explicit.astype(np.uint32))}
    name, data = f"{plan.side}/{plan.number:05d}.arrow", arrow_file(pa.RecordBatch.from_pydict(columns))
    return write_shard(folder_uri, name, data, tokens=num_tokens, windows=plan.num_windows)


def window_starts(plan: WindowShardPlan, rule: StreamRule, num_tokens: int) -> npt.NDArray[np.int64]:
    """Return the first token of each window in a shard of the stream; empty if no window is shifted back."""
    if num_tokens == num_tokens_of(plan.num_windows, rule.size, rule.stride):
        return np.zeros(0, np.int64)
    return np.minimum(np.arange(plan.num_windows) * rule.stride, num_tokens - rule.size - 1)


def read_side(entry: FileEntry, rule: StreamRule, side: Side) -> tuple[TokenIds, npt.NDArray[np.int64]]:
    """Return what a token shard contributes to the stream of a side: token ids, and the length of each document."""
    stream = _Stream(TokenShard.open(rule.tokens_uri, entry), rule, side)
    return stream.ids, stream.lengths


def _tally(entry: FileEntry, rule: StreamRule, side: Side) -> SideTally:
    shard = TokenShard.open(rule.tokens_uri, entry)
    stream = _Stream(shard, rule, side)
    hashes = shard.hash[stream.kept]
    num_tokens = len(stream.ids)
    return SideTally(
        [num_tokens if rule.over == "stream" else int(stream.windows_in_documents().sum())],
        len(stream.lengths),
        stream.num_skipped,
        int(stream.has_shifted.sum()) if rule.over == "document" else 0,
        num_tokens,
        int(shard.num_bytes[stream.kept].sum()),
        np.bincount(stream.ids, minlength=rule.vocab_size),
        hashes[hashes & np.uint64(rule.hash_mask) == 0],
    )


def _one_list(values: npt.NDArray[Any]) -> pa.Array[Any]:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))
