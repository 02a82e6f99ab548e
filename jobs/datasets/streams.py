"""From token shards to window shards: the documents of each side, in canonical order, are one stream, cut anew.

Two passes, neither of which holds more than a few shards. `tally` counts what token shards give to each side; from the
counts `plan_window_shards` tells which part of which token shards each window shard needs; `write_window_shard` makes
one of them. What comes out depends on the data and the settings alone, not on how many tasks there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.datasets.shards import TokenShard, write_batch
from jobs.datasets.split import SplitRule
from jobs.datasets.windows import SIDES, Last, Side, num_tokens_of, num_windows
from jobs.lake.store import FileEntry, create_shard
from jobs.tokenizer.tokenizer import Ids


@dataclass(frozen=True)
class StreamRule:
    """What makes streams and windows of token shards: where these lie, how they are split, how windows lie in them."""

    tokens_uri: str
    split: SplitRule
    size: int
    stride: int
    over: str
    last: Last
    vocab_size: int
    hash_mask: int
    """Documents whose hash has none of these bits are compared in search of duplicates: all of them, or a sample."""


@dataclass(frozen=True)
class SideTally:
    """What some token shards give to the stream of one side."""

    units: list[int]
    """For each shard, what window shards count by: tokens, or windows where these lie inside documents."""
    num_documents: int
    num_skipped: int
    """Documents too short for a window inside them; they are in no stream."""
    num_shifted: int
    """Windows that were shifted back to the end of a document."""
    num_tokens: int
    num_bytes: int
    token_counts: npt.NDArray[np.int64]
    """How often each token of the vocabulary occurs."""
    hashes: npt.NDArray[np.uint64]
    """Of the documents that are compared in search of duplicates."""

    def __add__(self, after: SideTally) -> SideTally:
        """The tally of these shards and those that come after them."""
        return SideTally(
            self.units + after.units,
            self.num_documents + after.num_documents,
            self.num_skipped + after.num_skipped,
            self.num_shifted + after.num_shifted,
            self.num_tokens + after.num_tokens,
            self.num_bytes + after.num_bytes,
            self.token_counts + after.token_counts,
            np.concatenate([self.hashes, after.hashes]),
        )


@dataclass(frozen=True)
class Piece:
    """What a window shard takes from a token shard: the units [begin, end) of what this gives to the side."""

    entry: FileEntry
    begin: int
    end: int


@dataclass(frozen=True)
class WindowShardPlan:
    """A window shard that is to be made."""

    side: Side
    number: int
    num_windows: int
    pieces: list[Piece]


class _Stream:
    """What one token shard gives to the stream of one side."""

    def __init__(self, shard: TokenShard, rule: StreamRule, side: Side) -> None:
        on_side = rule.split.is_valid(shard) == (side == "valid")
        self.kept = on_side if rule.over == "stream" else on_side & (shard.lengths > rule.size)
        """Which documents of the shard are in the stream."""
        self.num_skipped = int(on_side.sum() - self.kept.sum())
        self.lengths = shard.lengths[self.kept]
        """Number of tokens of each document in the stream."""
        self.ids: Ids = shard.ids[np.repeat(self.kept, shard.lengths)]
        self._rule = rule

    def windows_in_documents(self) -> npt.NDArray[np.int64]:
        """The number of windows inside each document."""
        windows: npt.NDArray[np.int64] = self._room() // self._rule.stride + 1 + self.has_shifted()
        return windows

    def has_shifted(self) -> npt.NDArray[np.bool_]:
        """Whether the last window of each document is shifted back."""
        return np.asarray((self._room() % self._rule.stride > 0) & (self._rule.last == "shift"))

    def _room(self) -> npt.NDArray[np.int64]:
        """How far the first window of each document could be moved."""
        return np.asarray(self.lengths - (self._rule.size + 1))

    def cut(self, begin: int, end: int) -> tuple[Ids, npt.NDArray[np.int64]]:
        """The tokens of the units [begin, end), and where windows start in them if these lie inside documents."""
        if self._rule.over == "stream":
            return self.ids[begin:end], np.zeros(0, np.int64)
        windows = self.windows_in_documents()
        index = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
        in_document = np.minimum(index * self._rule.stride, np.repeat(self._room(), windows))
        starts = (np.repeat(np.cumsum(self.lengths) - self.lengths, windows) + in_document)[begin:end]
        return self.ids[starts[0] : starts[-1] + self._rule.size + 1], starts - starts[0]


def tally(entries: Sequence[FileEntry], *, rule: StreamRule) -> dict[Side, SideTally]:
    """Count what neighbouring token shards give to each side.

    Raises:
        DamagedError: if a shard is missing, truncated or altered.
    """
    return {side: reduce(add, (_tally(entry, rule, side) for entry in entries)) for side in SIDES}


def plan_window_shards(
    side: Side, entries: Sequence[FileEntry], units: Sequence[int], rule: StreamRule, shard_tokens: int
) -> list[WindowShardPlan]:
    """Tell what each window shard of a side takes from which token shards.

    Args:
        side: The side.
        entries: The token shards.
        units: What each of them gives to the side.
        rule: How windows lie in the stream.
        shard_tokens: A window shard covers about so many tokens of the stream.
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
            # Only the last window can be shifted, where the stream has no room for it; it may be alone in its shard.
            end = min(first * rule.stride + num_tokens_of(windows, rule.size, rule.stride), num_units)
            begin = min(first * rule.stride, end - rule.size - 1)
        plans.append(WindowShardPlan(side, number, windows, list(_overlaps(entries, ends, begin, end))))
    return plans


def write_window_shard(plan: WindowShardPlan, *, folder_uri: str, rule: StreamRule) -> FileEntry:
    """Make one window shard below `folder_uri`; the manifest's line has its counts of tokens and windows.

    Raises:
        DamagedError: if a token shard is missing, truncated or altered.
    """
    ids: list[Ids] = []
    starts: list[npt.NDArray[np.int64]] = []
    num_tokens = 0
    for piece in plan.pieces:
        stream = _Stream(TokenShard.open(rule.tokens_uri, piece.entry), rule, plan.side)
        part, starts_in_part = stream.cut(piece.begin, piece.end)
        ids.append(part)
        starts.append(starts_in_part + num_tokens)
        num_tokens += len(part)
    assert num_tokens < 2**32, "starts are uint32"
    explicit = window_starts(plan, rule, num_tokens) if rule.over == "stream" else np.concatenate(starts)
    columns = {"tokens": _one_list(np.concatenate(ids)), "starts": _one_list(explicit.astype(np.uint32))}
    with create_shard(folder_uri, f"{plan.side}/{plan.number:05d}", ".arrow") as shard:
        write_batch(shard, pa.RecordBatch.from_pydict(columns))
    return shard.entry(tokens=num_tokens, windows=plan.num_windows)


def window_starts(plan: WindowShardPlan, rule: StreamRule, num_tokens: int) -> npt.NDArray[np.int64]:
    """The first token of each window in a shard of the stream; empty if no window is shifted back."""
    if num_tokens == num_tokens_of(plan.num_windows, rule.size, rule.stride):
        return np.zeros(0, np.int64)
    return np.minimum(np.arange(plan.num_windows) * rule.stride, num_tokens - rule.size - 1)


def read_side(entry: FileEntry, rule: StreamRule, side: Side) -> tuple[Ids, npt.NDArray[np.int64]]:
    """What a token shard gives to the stream of one side: its tokens, and the number of tokens of each document.

    Raises:
        DamagedError: if the shard is missing, truncated or altered.
    """
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
        int(stream.has_shifted().sum()) if rule.over == "document" else 0,
        num_tokens,
        int(shard.num_bytes[stream.kept].sum()),
        np.bincount(stream.ids, minlength=rule.vocab_size),
        hashes[hashes & np.uint64(rule.hash_mask) == 0],
    )


def _overlaps(entries: Sequence[FileEntry], ends: Sequence[int], begin: int, end: int) -> Iterable[Piece]:
    """What [begin, end) of all units is in each token shard; `ends` says where each one's units end."""
    for i in range(bisect_right(ends, begin), len(ends)):
        first = ends[i - 1] if i else 0
        if first >= end:
            return
        if first < ends[i]:
            yield Piece(entries[i], max(begin - first, 0), min(end, ends[i]) - first)


def _one_list(values: npt.NDArray[Any]) -> pa.Array[Any]:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))
