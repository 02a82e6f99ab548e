"""Token shards: the documents of a corpus as token ids, in the order of the corpus (by source, then offset).

A shard is an uncompressed Arrow IPC file of one record batch, with a row for each document:

- ``tokens`` (large_list of uint8, uint16 or uint32): the ids; the last one is the end-of-text token;
- ``source`` (uint32): the file, as an index into ``sources``, a JSON list of names in the schema's metadata;
- ``offset`` (uint64): where the document begins in that file: a byte of its text, or the row of a table;
- ``num_bytes`` (uint32): the length of the text in UTF-8;
- ``hash`` (uint64): the hash of the text, so that equal documents are found without reading them;
- ``near_keys`` (list of 14 uint64), only if a fixed split needs it: the MinHash keys (see `jobs.corpus.near_keys`).
  Nearly equal documents have at least one key in common.

The shard's entry in the manifest has the counts ``documents``, ``tokens`` and ``bytes`` (of text). The first and the
last source of a shard may continue in other shards: ``bytes_before`` counts the text of the first source in earlier
shards, and ``bytes_after`` the text of the last source in later shards.
"""

from __future__ import annotations

import io
import json
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.corpus.near_keys import NUM_KEYS, Keys
from jobs.lake.cache import verified_file
from jobs.lake.manifest import FileEntry
from jobs.lake.store import write_shard
from jobs.tokenizer.tokenizer import TokenIds

MAX_RESULT_BYTES = 64 * 2**20
"""The approximate limit, in bytes, for the results of all tasks that the driver holds at once."""


@dataclass(frozen=True)
class TokenShard:
    """A memory-mapped shard: one array for each column, and the names and sizes of its sources."""

    ids: TokenIds
    """The ids of all documents in one array."""
    ends: npt.NDArray[np.int64]
    """The position in `ids` at which each document ends."""
    source: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint64]
    position: npt.NDArray[np.int64]
    """The bytes of text before each document in its source. They do not depend on the format of the source."""
    num_bytes: npt.NDArray[np.uint32]
    hash: npt.NDArray[np.uint64]
    sources: list[tuple[str, int]]
    """The names of the sources, and the bytes of text that each has in all shards."""
    near_keys: Keys | None = None
    """The MinHash keys of each document, of shape (documents, 14); None if the shard does not have them."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each document."""
        return np.diff(self.ends, prepend=0)

    @classmethod
    def open(cls, folder_uri: str, entry: FileEntry) -> TokenShard:
        """Open a shard of the dataset at `folder_uri`; raise DamagedError if it is missing, truncated or altered."""
        path = os.fsencode(verified_file(folder_uri, entry))
        with pa.memory_map(path) as file:  # type: ignore[arg-type]  # bytes work, too, for names that are not UTF-8
            batch = pa.ipc.open_file(file).get_batch(0)
        tokens = batch.column("tokens")
        assert isinstance(tokens, pa.LargeListArray)
        source, offset, num_bytes, hashes = (
            batch.column(name).to_numpy() for name in ("source", "offset", "num_bytes", "hash")
        )
        names = json.loads(batch.schema.metadata[b"sources"])
        here = np.bincount(source, num_bytes, len(names)).astype(np.int64)
        before = np.cumsum(num_bytes, dtype=np.int64) - num_bytes
        position = before - (np.cumsum(here) - here)[source]
        position[source == 0] += entry.counts["bytes_before"]
        here[0] += entry.counts["bytes_before"]
        here[-1] += entry.counts["bytes_after"]
        sources = list(zip(names, here.tolist(), strict=True))
        ends = tokens.offsets.to_numpy()[1:]
        keys = batch.column("near_keys") if "near_keys" in batch.schema.names else None
        near_keys = keys.flatten().to_numpy().reshape(-1, NUM_KEYS) if isinstance(keys, pa.FixedSizeListArray) else None
        return cls(tokens.values.to_numpy(), ends, source, offset, position, num_bytes, hashes, sources, near_keys)


@dataclass(frozen=True)
class ShardSlice:
    """The units [begin, end) of a token shard. Units are tokens, or windows if windows lie inside documents."""

    entry: FileEntry
    begin: int
    end: int


def slice_shards(entries: Sequence[FileEntry], ends: Sequence[int], begin: int, end: int) -> list[ShardSlice]:
    """Return the slices of shards that make up the units [begin, end), counted over all shards (see `ShardSlice`).

    ``ends[i]`` is the number of units in the first i + 1 shards together.
    """
    slices = []
    for i in range(bisect_right(ends, begin), len(ends)):
        first = ends[i - 1] if i else 0
        if first >= end:
            break
        if first < ends[i]:
            slices.append(ShardSlice(entries[i], max(begin - first, 0), min(end, ends[i]) - first))
    return slices


def group_shards(entries: Sequence[FileEntry], result_bytes: int) -> list[Sequence[FileEntry]]:
    """Divide shards into groups, one for each task. The result of a task has `result_bytes` bytes.

    There are so few groups that the driver can hold the results of all tasks.
    """
    num_groups = max(1, MAX_RESULT_BYTES // result_bytes)
    size = -(-len(entries) // num_groups)
    return [entries[start : start + size] for start in range(0, len(entries), size)]


@dataclass(frozen=True)
class WrittenShard:
    """A written shard, and the names of its sources in order, each with the bytes of text that it has in this shard."""

    entry: FileEntry
    sources: list[tuple[str, int]]


def locate_sources(shards: Sequence[WrittenShard]) -> tuple[list[FileEntry], Counter[str]]:
    """Return the shards' entries with `bytes_before` and `bytes_after` added, and the bytes of text of each source."""
    totals, spans = Counter[str](), []
    for shard in shards:
        before = totals[shard.sources[0][0]]
        for name, num_bytes in shard.sources:
            totals[name] += num_bytes
        spans.append((before, totals[shard.sources[-1][0]]))
    entries = []
    for shard, (before, end) in zip(shards, spans, strict=True):
        around = {"bytes_before": before, "bytes_after": totals[shard.sources[-1][0]] - end}
        entries.append(replace(shard.entry, counts={**shard.entry.counts, **around}))
    return entries, totals


def arrow_file(batch: pa.RecordBatch) -> bytes:
    """Return an Arrow IPC file of one record batch."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


@dataclass(frozen=True)
class EncodedDocuments:
    """Documents as the columns of a shard, and the names of their sources."""

    ids: TokenIds
    ends: npt.NDArray[np.int64]
    source: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint64]
    num_bytes: npt.NDArray[np.uint32]
    hash: npt.NDArray[np.uint64]
    names: list[str]
    near_keys: Keys | None = None

    @property
    def size(self) -> int:
        """The number of bytes of text."""
        return int(self.num_bytes.sum())

    @classmethod
    def join(cls, parts: Sequence[EncodedDocuments]) -> EncodedDocuments:
        """Return the documents of all parts, in their order; there must be at least one part."""
        if len(parts) == 1:
            return parts[0]
        index = {name: i for i, name in enumerate(dict.fromkeys(name for part in parts for name in part.names))}
        starts = np.cumsum([0, *(len(part.ids) for part in parts)])
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.ends + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([np.array([index[n] for n in part.names], np.uint32)[part.source] for part in parts]),
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.num_bytes for part in parts]),
            np.concatenate([part.hash for part in parts]),
            list(index),
            _join_keys([part.near_keys for part in parts]),
        )

    @classmethod
    def of_source(cls, folder_uri: str, entry: FileEntry, name: str, new_name: str) -> EncodedDocuments:
        """Read the documents of the source `name` from a shard, if there are any. Rename the source to `new_name`."""
        shard = TokenShard.open(folder_uri, entry)
        names = [source for source, _ in shard.sources]
        kept = shard.source == (names.index(name) if name in names else len(names))
        return cls(
            shard.ids[np.repeat(kept, shard.lengths)],
            np.cumsum(shard.lengths[kept]),
            np.zeros(int(kept.sum()), np.uint32),
            shard.offset[kept],
            shard.num_bytes[kept],
            shard.hash[kept],
            [new_name],
            None if shard.near_keys is None else shard.near_keys[kept],
        )

    def write(self, folder_uri: str, stem: str) -> WrittenShard:
        """Write a shard below `folder_uri`, under a name that starts with `stem`."""
        columns: dict[str, pa.Array[Any]] = {
            "tokens": pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], self.ends])), pa.array(self.ids)),
            "source": pa.array(self.source),
            "offset": pa.array(self.offset),
            "num_bytes": pa.array(self.num_bytes),
            "hash": pa.array(self.hash),
        }
        if self.near_keys is not None:
            columns["near_keys"] = pa.FixedSizeListArray.from_arrays(pa.array(self.near_keys.reshape(-1)), NUM_KEYS)
        batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata({"sources": json.dumps(self.names)})
        by_source = np.bincount(self.source, self.num_bytes).astype(np.int64).tolist()
        counts = {"documents": len(self.ends), "tokens": len(self.ids), "bytes": sum(by_source)}
        entry = write_shard(folder_uri, f"{stem}.arrow", arrow_file(batch), **counts)
        return WrittenShard(entry, list(zip(self.names, by_source, strict=True)))


def _join_keys(parts: Sequence[Keys | None]) -> Keys | None:
    """Return the MinHash keys of all parts. Return None if a part has no keys."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
