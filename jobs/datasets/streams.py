"""Writes window shards from token shards.

The documents of a side, in order, form one stream, which is cut into window shards. No task holds more than a few
shards. `measure_draws` makes a histogram of the draws, so that the threshold of a split can be chosen. Then `tally`
counts what token shards contribute to each side. From these counts, `plan_window_shards` derives which slices of token
shards each window shard needs. Then `write_window_shard` writes one window shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from itertools import accumulate, pairwise
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.datasets.shards import ShardSlice, TokenShard, arrow_file, slice_shards
from jobs.datasets.split import Indices, Segments, Split, SplitRule
from jobs.datasets.windows import SIDES, Last, Side, num_tokens_of, num_windows
from jobs.lake.manifest import FileEntry
from jobs.lake.store import write_shard
from jobs.tokenizer.tokenizer import TokenIds, Tokenizer

CHUNK_TOKENS = 1 << 20
"""The number of tokens that are read at once. So the memory does not grow with the length of a document."""


@dataclass(frozen=True)
class StreamRule:
    """The rule that makes streams and windows of token shards."""

    tokens_uri: str
    """The folder of the dataset of tokens."""
    split: Split
    size: int
    stride: int
    over: str
    last: Last
    vocab_size: int
    hash_mask: int
    """A bit mask. To find duplicates, only documents whose hash has none of its bits are compared: all documents if the
    mask is 0, else a sample."""

    def shifts_last(self, lengths: Indices) -> npt.NDArray[np.bool_]:
        """Return, for each document with one of these `lengths`, whether the last window inside it is shifted back."""
        room = lengths - (self.size + 1)
        return np.asarray((room > 0) & (room % self.stride > 0) & (self.last == "shift"))

    def windows_inside(self, lengths: Indices) -> Indices:
        """Return the number of windows inside each document."""
        room = lengths - (self.size + 1)
        return np.where(room < 0, 0, room // self.stride + 1) + self.shifts_last(lengths)


@dataclass(frozen=True)
class SideTally:
    """Counts of what some token shards contribute to the stream of one side."""

    units: list[int]
    """The number of units of each shard: tokens, or windows if windows lie inside documents."""
    num_documents: int
    """Documents in the stream. Each part of a document that is cut counts as one."""
    num_skipped: int
    """Documents too short for a window inside them; they are not in the stream."""
    num_cut_documents: int
    """Documents of which only parts are on this side."""
    num_gap_tokens: int
    """Tokens left out at the cuts of documents."""
    num_gap_bytes: int
    """Bytes of text left out at the cuts of documents."""
    num_shifted: int
    """Windows that were shifted back to the end of a document."""
    num_tokens: int
    num_bytes: int
    token_counts: npt.NDArray[np.int64]
    """The number of occurrences of each token of the vocabulary."""
    hashes: npt.NDArray[np.uint64]
    """The hashes of the documents that are compared to find duplicates. Documents that are cut are not compared."""

    def __add__(self, after: SideTally) -> SideTally:
        """Return the tally of the shards of `self`, followed by those of `after`."""
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


class Stream:
    """The segments of one token shard that are in the stream of one side."""

    def __init__(self, shard: TokenShard, segments: Segments, rule: StreamRule, side: Side) -> None:
        on_side = segments.is_valid == (side == "valid")
        lengths = segments.end - segments.begin
        self.kept = on_side if rule.over == "stream" else on_side & (lengths > rule.size)
        """A mask of the segments that are in the stream."""
        self.num_skipped = int(on_side.sum() - self.kept.sum())
        self.lengths = lengths[self.kept]
        """The number of tokens of each segment in the stream."""
        self.num_tokens = int(self.lengths.sum())
        self._shard, self._rule = shard, rule
        self._begin, self._end, self._goes_on = (
            values[self.kept] for values in (segments.begin, segments.end, segments.goes_on)
        )

    def read(self, begin: int, end: int) -> TokenIds:
        """Return the tokens [begin, end) of the stream. `end` must be greater than `begin`.

        Each segment ends with the end-of-text token, even if its document goes on.
        """
        ends = np.cumsum(self.lengths)
        first, last = np.searchsorted(ends, [begin, end - 1], "right").tolist()
        here = slice(first, last + 1)
        start = self._begin[first]
        borders = np.column_stack([self._begin[here], self._end[here]]).ravel() - start
        ids: TokenIds = self._shard.ids[start : self._end[last]]
        ids = ids[np.repeat(np.arange(len(borders)) % 2 == 1, np.diff(borders, prepend=0))]
        before = ends[first] - self.lengths[first]
        ids[ends[here][self._goes_on[here]] - before - 1] = self._shard.ids[-1]  # the end-of-text token
        return ids[begin - before : end - before]

    def chunks(self, overlap: int = 0) -> Iterator[tuple[int, TokenIds]]:
        """Yield the tokens in chunks, with the offset of each; neighbouring chunks share `overlap` tokens.

        The memory that a chunk needs does not grow with the length of a document.
        """
        for begin in range(0, self.num_tokens - overlap, CHUNK_TOKENS):
            yield begin, self.read(begin, min(begin + CHUNK_TOKENS + overlap, self.num_tokens))

    def cut(self, begin: int, end: int) -> tuple[TokenIds, npt.NDArray[np.int64]]:
        """Return the tokens of the units [begin, end) (see `SideTally.units`), and where in them each window starts.

        The starts are empty if windows run over the whole stream.
        """
        if self._rule.over == "stream":
            return self.read(begin, end), np.zeros(0, np.int64)
        windows, room = self._rule.windows_inside(self.lengths), self.lengths - (self._rule.size + 1)
        index = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
        in_document = np.minimum(index * self._rule.stride, np.repeat(room, windows))
        starts = (np.repeat(np.cumsum(self.lengths) - self.lengths, windows) + in_document)[begin:end]
        return self.read(starts[0], starts[-1] + self._rule.size + 1), starts - starts[0]


def tally(entries: Sequence[FileEntry], *, rule: StreamRule, tokenizer: Tokenizer) -> dict[Side, SideTally]:
    """Count what consecutive token shards contribute to each side."""
    counted = [_tally(TokenShard.open(rule.tokens_uri, entry), rule, tokenizer) for entry in entries]
    return {side: reduce(add, (each[side] for each in counted)) for side in SIDES}


def measure_draws(entries: Sequence[FileEntry], *, rule: StreamRule, edges: npt.NDArray[np.float64]) -> Indices:
    """Return a histogram of the draws in some token shards, with bins that begin at `edges`.

    It counts units: tokens, or windows if windows lie inside documents.
    """
    assert isinstance(rule.split, SplitRule), "only the draws of a SplitRule can be measured"
    found = np.zeros(len(edges), np.int64)
    for entry in entries:
        shard = TokenShard.open(rule.tokens_uri, entry)
        pieces, draws = rule.split.draws(shard)
        units = pieces.end - pieces.begin
        if rule.over == "document":  # a document's windows, divided among its pieces
            count = np.bincount(pieces.document)[pieces.document]
            windows = rule.windows_inside(shard.lengths)[pieces.document]
            units = windows * (pieces.index + 1) // count - windows * pieces.index // count
        found += np.bincount(np.searchsorted(edges, draws, "right") - 1, units, len(edges)).astype(np.int64)
    return found


def plan_window_shards(
    side: Side, entries: Sequence[FileEntry], units: Sequence[int], rule: StreamRule, shard_tokens: int
) -> list[WindowShardPlan]:
    """Plan the window shards of one side, each of about `shard_tokens` tokens of the stream.

    `units` lists how many tokens of each token shard belong to the side. If windows lie inside documents, it lists how
    many windows (see `SideTally.units`).
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
        stream = open_stream(part.entry, rule, plan.side)
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
    """Return the position of each window's first token in a window shard; empty if no window is shifted back."""
    if num_tokens == num_tokens_of(plan.num_windows, rule.size, rule.stride):
        return np.zeros(0, np.int64)
    return np.minimum(np.arange(plan.num_windows) * rule.stride, num_tokens - rule.size - 1)


def open_stream(entry: FileEntry, rule: StreamRule, side: Side) -> Stream:
    """Open a token shard, and return the part of it that is in the stream of a side."""
    shard = TokenShard.open(rule.tokens_uri, entry)
    return Stream(shard, rule.split.segments(shard), rule, side)


def _tally(shard: TokenShard, rule: StreamRule, tokenizer: Tokenizer) -> dict[Side, SideTally]:
    segments = rule.split.segments(shard)
    num_bytes, gap_bytes = _segment_bytes(shard, segments, tokenizer)
    found: dict[Side, SideTally] = {}
    for side in SIDES:
        stream = Stream(shard, segments, rule, side)
        hashes = shard.hash[segments.document[stream.kept & ~segments.is_part]]
        on_side = segments.is_valid == (side == "valid")
        goes_on = on_side & segments.goes_on
        found[side] = SideTally(
            [stream.num_tokens if rule.over == "stream" else int(rule.windows_inside(stream.lengths).sum())],
            len(stream.lengths),
            stream.num_skipped,
            len(np.unique(segments.document[on_side & segments.is_part])),
            # The end-of-text token replaces the gap's first token, which counts as left out.
            int((segments.begin[1:] - segments.end[:-1] + 1)[goes_on[:-1]].sum()),
            int(gap_bytes[on_side].sum()),
            int(rule.shifts_last(stream.lengths).sum()) if rule.over == "document" else 0,
            stream.num_tokens,
            int(num_bytes[stream.kept].sum()),
            sum(
                (np.bincount(ids, minlength=rule.vocab_size) for _, ids in stream.chunks()),
                start=np.zeros(rule.vocab_size, np.int64),
            ),
            hashes[hashes & np.uint64(rule.hash_mask) == 0],
        )
    return found


def _segment_bytes(shard: TokenShard, segments: Segments, tokenizer: Tokenizer) -> tuple[Indices, Indices]:
    """Return the bytes of text of each segment, and of the gap after each segment.

    If a document is cut, its bytes are divided in proportion to the lengths of the decoded tokens. This is an estimate.
    """
    num_bytes = shard.num_bytes[segments.document].astype(np.int64)
    gaps = np.zeros(len(num_bytes), np.int64)
    for document in np.unique(segments.document[segments.goes_on]):
        here = np.flatnonzero(segments.document == document)
        begin, end = segments.begin[here], segments.end[here]
        borders = np.column_stack([begin, end - segments.goes_on[here]]).ravel()
        sizes = [_decoded_bytes(shard.ids[a:b], tokenizer) for a, b in pairwise(borders.tolist())]
        parts = np.diff(np.rint(np.cumsum([0, *sizes]) * (num_bytes[here[0]] / sum(sizes)))).astype(np.int64)
        num_bytes[here], gaps[here[:-1]] = parts[::2], parts[1::2]
    return num_bytes, gaps


def _decoded_bytes(ids: TokenIds, tokenizer: Tokenizer) -> int:
    parts = (ids[start : start + CHUNK_TOKENS] for start in range(0, len(ids), CHUNK_TOKENS))
    return sum(len(tokenizer.decode(part).encode()) for part in parts)


def _one_list(values: npt.NDArray[Any]) -> pa.Array[Any]:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))
