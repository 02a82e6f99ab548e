"""Token shards: the documents of a corpus in canonical order (by source, then offset), as token ids.

A shard is an Arrow IPC file, uncompressed, one record batch with a row for each document:

- ``tokens`` (large_list of uint16 or uint32): its ids, the last of which is the end-of-text token;
- ``source`` (uint32): its file, as an index into ``sources``, a JSON list of [name, bytes] in the schema's metadata;
- ``offset`` (uint64): where in that file it begins, in bytes;
- ``num_bytes`` (uint32): length of its text in UTF-8;
- ``hash`` (uint64): of its text, so that equal documents can be told without reading them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake import FileEntry, create_shard, verified_file
from jobs.text.corpus import ByteRange
from jobs.text.documents import Unit, read_documents
from jobs.tokens.tokenizer import Ids, Tokenizer


@dataclass(frozen=True)
class TokenShard:
    """A shard that is memory-mapped: one array for each column, and the names and sizes of its sources."""

    ids: Ids
    """Ids of all documents, one after the other."""
    ends: npt.NDArray[np.int64]
    """Where in `ids` each document ends."""
    source: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint64]
    num_bytes: npt.NDArray[np.uint32]
    hash: npt.NDArray[np.uint64]
    sources: list[tuple[str, int]]

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
        sources = [(name, size) for name, size in json.loads(batch.schema.metadata[b"sources"])]
        ends = tokens.offsets.to_numpy()[1:]
        return cls(tokens.values.to_numpy(), ends, source, offset, num_bytes, hashes, sources)


@dataclass(frozen=True)
class Tokenized:
    """What became of a task's byte ranges."""

    entry: FileEntry | None
    """The manifest's line of the shard, with counts of documents, tokens and bytes; None where no document begins."""
    num_lines: int
    """Lines that end in the ranges."""
    documents_by_length: dict[int, int]
    """How many documents have how many tokens, the end-of-text token included."""


def write_token_shard(
    item: tuple[int, Sequence[ByteRange]], *, folder_uri: str, tokenizer: Tokenizer, unit: Unit
) -> Tokenized:
    """Encode the documents that begin in some byte ranges and write them as a shard below `folder_uri`.

    Args:
        item: The shard's number and the byte ranges.
        folder_uri: The dataset.
        tokenizer: What encodes.
        unit: What a document is.

    Raises:
        InputError: if a file cannot be read.
    """
    number, parts = item
    read = [read_documents(part, unit) for part in parts]
    num_lines = sum(documents.num_lines for documents in read)
    texts = [text for documents in read for text in documents.texts]
    if not texts:
        return Tokenized(None, num_lines, {})
    ids, ends = _encode(texts, tokenizer)
    num_bytes = np.fromiter(map(len, texts), np.uint32, len(texts))
    columns: dict[str, pa.Array[Any]] = {
        "tokens": pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends])), pa.array(ids)),
        "source": pa.array(np.repeat(np.arange(len(read), dtype=np.uint32), [len(part.texts) for part in read])),
        "offset": pa.array([offset for documents in read for offset in documents.offsets], pa.uint64()),
        "num_bytes": pa.array(num_bytes),
        "hash": pa.array(_hashes(texts)),
    }
    sources = json.dumps([(part.source.name, part.source.size) for part in parts])
    batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata({"sources": sources})
    with create_shard(folder_uri, f"shards/{number:05d}", ".arrow") as shard:
        write_batch(shard, batch)
    entry = shard.entry(documents=len(texts), tokens=len(ids), bytes=int(num_bytes.sum()))
    lengths, how_many = np.unique(np.diff(ends, prepend=0), return_counts=True)
    return Tokenized(entry, num_lines, dict(zip(lengths.tolist(), how_many.tolist(), strict=True)))


def write_batch(sink: Any, batch: pa.RecordBatch) -> None:
    """Write an Arrow IPC file of one record batch."""
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _encode(texts: list[bytes], tokenizer: Tokenizer) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Ids of all documents, each with the end-of-text token at its end, and where each document ends."""
    # PySpark sets this variable to the cores of a task; in a process of our own all cores are ours.
    parallel = os.environ.get("OMP_NUM_THREADS") != "1"
    ids, offsets = tokenizer.encode_batch(texts, parallel)
    ids = np.insert(ids, offsets[1:], tokenizer.end_of_text)
    return ids, offsets[1:] + np.arange(1, len(offsets))


def _hashes(texts: list[bytes]) -> npt.NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8")
