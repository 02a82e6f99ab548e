"""Token shards: the documents of a corpus in canonical order (by source, then place), as token ids.

A shard is an Arrow IPC file, uncompressed, one record batch with a row for each document:

- ``tokens`` (large_list of uint16 or uint32): its ids, the last of which is the end-of-text token;
- ``source`` (uint32): its file, as an index into ``sources``, a JSON list of names in the schema's metadata;
- ``offset`` (uint64): where in that file it begins: a byte of its text, or the row of a table;
- ``num_bytes`` (uint32): length of its text in UTF-8;
- ``hash`` (uint64): of its text, so that equal documents can be told without reading them.

The manifest's line has the counts ``documents``, ``tokens`` and ``bytes`` (of text), and how many bytes of its first
source lie in shards before it (``bytes_before``) and of its last source in shards after it (``bytes_after``).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.config import TokenizeConfig
from jobs.lake import FileEntry, create_shard, verified_file
from jobs.text.corpus import ByteRange
from jobs.text.documents import Documents
from jobs.text.duplicates import Repetitions, hash_texts
from jobs.text.reading import read_documents
from jobs.tokens.tokenizer import Ids, Tokenizer


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


@dataclass(frozen=True)
class Tokenized:
    """What became of a task's parts of files."""

    shards: list[WrittenShard]
    counts: Counter[str]
    """What is unusual in the documents."""
    documents_by_length: Counter[int]
    """How many documents have how many tokens, the end-of-text token included."""


def write_token_shards(
    item: tuple[int, Sequence[ByteRange]],
    *,
    folder_uri: str,
    tokenizer: Tokenizer,
    settings: TokenizeConfig,
    repetitions: Repetitions | None = None,
) -> Tokenized:
    """Encode the documents that begin in some parts of files and write them as shards below `folder_uri`.

    There is a shard for about `tokenize.split_bytes` of text, so that a file that cannot be cut needs no more memory.

    Args:
        item: The number of the task, and the parts.
        folder_uri: The dataset.
        tokenizer: What encodes.
        settings: How the files are read.
        repetitions: Which documents are to be dropped since they came before.

    Raises:
        InputError: if a file cannot be read.
    """
    number, parts = item
    done = Tokenized([], Counter(), Counter())
    repeated = repetitions.of_split(number) if repetitions else set()
    for batches in _gather(parts, settings, repeated, done.counts):
        if shard := _Rows.encode(batches, tokenizer):
            stem = f"shards/{number:05d}-{len(done.shards):03d}"
            done.shards.append(shard.write(folder_uri, stem))
            done.documents_by_length.update(np.diff(shard.ends, prepend=0).tolist())
    return done


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


def _gather(
    parts: Sequence[ByteRange], settings: TokenizeConfig, repeated: set[int], counts: Counter[str]
) -> Iterator[list[tuple[str, Documents]]]:
    """Read parts of files; hand out so many batches at a time, each with its source's name, as make a shard."""
    gathered: list[tuple[str, Documents]] = []
    size = num_read = 0
    for part in parts:
        for whole in read_documents(part, settings):
            batch = _without(whole, repeated, num_read)
            num_read += len(whole.texts)
            counts.update(batch.counts)
            gathered.append((part.source.name, batch))
            size += sum(map(len, batch.texts))
            if size >= settings.split_bytes:
                yield gathered
                gathered, size = [], 0
    yield gathered


def _without(batch: Documents, repeated: set[int], first: int) -> Documents:
    """A batch, whose documents are counted from `first`, without those that are repeated."""
    if not repeated:
        return batch
    kept = [i for i in range(len(batch.texts)) if first + i not in repeated]
    counts = batch.counts + Counter(duplicate_documents=len(batch.texts) - len(kept))
    return Documents([batch.texts[i] for i in kept], [batch.offsets[i] for i in kept], counts)


@dataclass(frozen=True)
class _Rows:
    """The columns of a shard that is to be written."""

    ids: Ids
    ends: npt.NDArray[np.int64]
    source: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint64]
    num_bytes: npt.NDArray[np.uint32]
    hash: npt.NDArray[np.uint64]
    names: list[str]

    @classmethod
    def encode(cls, batches: Sequence[tuple[str, Documents]], tokenizer: Tokenizer) -> _Rows | None:
        """The rows of some documents, or None if there are none."""
        batches = [(name, batch) for name, batch in batches if batch.texts]
        texts = [text for _, batch in batches for text in batch.texts]
        if not texts:
            return None
        ids, ends = _encode(texts, tokenizer)
        names = list(dict.fromkeys(name for name, _ in batches))
        index = {name: i for i, name in enumerate(names)}
        return cls(
            ids,
            ends,
            np.repeat(
                np.array([index[name] for name, _ in batches], np.uint32), [len(batch.texts) for _, batch in batches]
            ),
            np.array([offset for _, batch in batches for offset in batch.offsets], np.uint64),
            np.fromiter(map(len, texts), np.uint32, len(texts)),
            hash_texts(texts),
            names,
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


def _encode(texts: list[bytes], tokenizer: Tokenizer) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Ids of all documents, each with the end-of-text token at its end, and where each document ends."""
    # PySpark sets this variable to the cores of a task; in a process of our own all cores are ours.
    parallel = os.environ.get("OMP_NUM_THREADS") != "1"
    ids, offsets = tokenizer.encode_batch(texts, parallel)
    ids = np.insert(ids, offsets[1:], tokenizer.end_of_text)
    return ids, offsets[1:] + np.arange(1, len(offsets))
