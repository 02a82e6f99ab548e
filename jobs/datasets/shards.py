"""Token shards: the documents of a corpus in canonical order (by source, then place), as token ids.

A shard is an Arrow IPC file, uncompressed, one record batch with a row for each document:

- ``tokens`` (large_list of uint8, uint16 or uint32): its ids, the last of which is the end-of-text token;
- ``source`` (uint32): its file, as an index into ``sources``, a JSON list of names in the schema's metadata;
- ``offset`` (uint64): where in that file it begins: a byte of its text, or the row of a table;
- ``num_bytes`` (uint32): length of its text in UTF-8;
- ``hash`` (uint64): of its text, so that equal documents can be told without reading them.

The manifest's line has the counts ``documents``, ``tokens`` and ``bytes`` (of text), and how many bytes of its first
source lie in shards before it (``bytes_before``) and of its last source in shards after it (``bytes_after``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.store import FileEntry, create_shard, verified_file
from jobs.tokenizer.tokenizer import Ids


@dataclass(frozen=True)
class TokenShard:
    """A shard that is memory-mapped: one array for each column, and what is known of its sources."""

    ids: Ids
    """Ids of all documents, one after the other."""
    ends: npt.NDArray[np.int64]
    """Where in `ids` each document ends."""
    source: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint64]
    position: npt.NDArray[np.int64]
    """How many bytes of text come before each document in its source: the same for any format of the source."""
    num_bytes: npt.NDArray[np.uint32]
    hash: npt.NDArray[np.uint64]
    sources: list[tuple[str, int]]
    """Names of the sources, and how many bytes of text each has in all shards."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each document."""
        return np.diff(self.ends, prepend=0)

    @classmethod
    def open(cls, folder_uri: str, entry: FileEntry) -> TokenShard:
        """Open a shard of the dataset at `folder_uri`.

        Raises:
            DamagedError: if it is missing, truncated or altered.
        """
        with pa.memory_map(str(verified_file(folder_uri, entry))) as file:
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
        return cls(tokens.values.to_numpy(), ends, source, offset, position, num_bytes, hashes, sources)


@dataclass(frozen=True)
class WrittenShard:
    """A shard, and how many bytes of text of each source are in it, in their order."""

    entry: FileEntry
    sources: list[tuple[str, int]]


def in_place(shards: Sequence[WrittenShard]) -> tuple[list[FileEntry], Counter[str]]:
    """The manifest's lines of all shards, in order, with the places of their sources; and the bytes of each source."""
    totals, places = Counter[str](), []
    for shard in shards:
        before = totals[shard.sources[0][0]]
        for name, num_bytes in shard.sources:
            totals[name] += num_bytes
        places.append((before, totals[shard.sources[-1][0]]))
    entries = []
    for shard, (before, end) in zip(shards, places, strict=True):
        around = {"bytes_before": before, "bytes_after": totals[shard.sources[-1][0]] - end}
        entries.append(replace(shard.entry, counts={**shard.entry.counts, **around}))
    return entries, totals


def write_batch(sink: Any, batch: pa.RecordBatch) -> None:
    """Write an Arrow IPC file of one record batch."""
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


@dataclass(frozen=True)
class Rows:
    """Documents that are encoded: the columns of a shard that is to be written, and the names of their sources."""

    ids: Ids
    ends: npt.NDArray[np.int64]
    source: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint64]
    num_bytes: npt.NDArray[np.uint32]
    hash: npt.NDArray[np.uint64]
    names: list[str]

    @property
    def size(self) -> int:
        """Bytes of text."""
        return int(self.num_bytes.sum())

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """All rows, those of each part after those of the part before; there is at least one part."""
        if len(parts) == 1:
            return parts[0]
        names = list(dict.fromkeys(name for part in parts for name in part.names))
        index = {name: i for i, name in enumerate(names)}
        starts = np.cumsum([0, *(len(part.ids) for part in parts)])
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.ends + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([np.array([index[n] for n in part.names], np.uint32)[part.source] for part in parts]),
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.num_bytes for part in parts]),
            np.concatenate([part.hash for part in parts]),
            names,
        )

    @classmethod
    def of_source(cls, folder_uri: str, entry: FileEntry, name: str) -> Rows:
        """The rows that a shard has of one source; there may be none."""
        shard = TokenShard.open(folder_uri, entry)
        names = [source for source, _ in shard.sources]
        rows = shard.source == (names.index(name) if name in names else len(names))
        return cls(
            shard.ids[np.repeat(rows, shard.lengths)],
            np.cumsum(shard.lengths[rows]),
            np.zeros(int(rows.sum()), np.uint32),
            shard.offset[rows],
            shard.num_bytes[rows],
            shard.hash[rows],
            [name],
        )

    def write(self, folder_uri: str, stem: str) -> WrittenShard:
        """Write them below `folder_uri`, under a name that starts with `stem`."""
        columns: dict[str, pa.Array[Any]] = {
            "tokens": pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], self.ends])), pa.array(self.ids)),
            "source": pa.array(self.source),
            "offset": pa.array(self.offset),
            "num_bytes": pa.array(self.num_bytes),
            "hash": pa.array(self.hash),
        }
        batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata({"sources": json.dumps(self.names)})
        with create_shard(folder_uri, stem, ".arrow") as shard:
            write_batch(shard, batch)
        by_source = np.bincount(self.source, self.num_bytes).astype(np.int64).tolist()
        entry = shard.entry(documents=len(self.ends), tokens=len(self.ids), bytes=sum(by_source))
        return WrittenShard(entry, list(zip(self.names, by_source, strict=True)))
