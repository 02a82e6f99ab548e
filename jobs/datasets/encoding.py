"""Encodes the splits of a corpus into token shards; documents that an earlier dataset has are copied from it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.documents import Documents
from jobs.corpus.duplicates import Duplicates
from jobs.corpus.near_keys import keys_of_documents
from jobs.corpus.reading import read_documents
from jobs.corpus.texts import Texts
from jobs.datasets.shards import EncodedDocuments, WrittenShard
from jobs.datasets.tokens import SHARDS
from jobs.lake.manifest import FileEntry
from jobs.tokenizer.tokenizer import Tokenizer

RangeKey = tuple[str, int, int]


def range_key(part: ByteRange) -> RangeKey:
    """Return the name of the source, the start and the end of a byte range."""
    return part.source.name, part.start, part.end


@dataclass(frozen=True)
class EncodedRange:
    """The shards of an earlier dataset that have the documents of a byte range, among others."""

    name: str
    """The name that the source had there."""
    shards: Sequence[FileEntry]


@dataclass(frozen=True)
class SplitTask:
    """A split that is to be encoded, and those of its byte ranges that an earlier dataset has."""

    number: int
    parts: Sequence[ByteRange]
    reused: Mapping[RangeKey, EncodedRange] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedSplit:
    """The shards of a split, and statistics of its documents."""

    shards: list[WrittenShard]
    counts: dict[str, Counter[str]]
    """Unusual things in the documents of each source that was read."""
    documents_by_length: Counter[int]
    """The number of documents of each length in tokens, the end-of-text token included."""


def write_token_shards(
    task: SplitTask,
    *,
    folder_uri: str,
    tokenizer: Tokenizer,
    settings: TokenizeConfig,
    reused_uri: str = "",
    duplicates: Duplicates | None = None,
) -> EncodedSplit:
    """Encode the documents of a split and write them as shards below `folder_uri`.

    Each shard holds about `tokenize.split_bytes` of text, so a file that cannot be divided needs no more memory. The
    shards of a split that is reused as a whole, from the dataset at `reused_uri`, are the same as before.
    """
    encoded = EncodedSplit([], {}, Counter())
    batches = _read_split(task, settings, reused_uri, duplicates, encoded.counts)
    for group in _group_by_size(batches, settings.split_bytes):
        if documents := _encode_group(group, tokenizer, settings):
            stem = f"{SHARDS}{task.number:05d}-{len(encoded.shards):03d}"
            encoded.shards.append(documents.write(folder_uri, stem))
            lengths, counts = np.unique(np.diff(documents.ends, prepend=0), return_counts=True)
            encoded.documents_by_length.update(dict(zip(lengths.tolist(), counts.tolist(), strict=True)))
    return encoded


@dataclass(frozen=True)
class _PlainDocuments:
    """Documents of a source that are not encoded yet."""

    name: str
    documents: Documents

    @property
    def size(self) -> int:
        """Bytes of text."""
        return int(self.documents.texts.sizes.sum())


def _read_split(
    task: SplitTask,
    settings: TokenizeConfig,
    reused_uri: str,
    duplicates: Duplicates | None,
    counts: dict[str, Counter[str]],
) -> Iterator[_PlainDocuments | EncodedDocuments]:
    """Yield the documents of a split in order, encoded if an earlier dataset has them; add to `counts` by source."""
    repeated = duplicates.of_split(task.number) if duplicates else set()
    num_read = 0
    for part in task.parts:
        name = part.source.name
        if earlier := task.reused.get(range_key(part)):
            yield from (EncodedDocuments.of_source(reused_uri, each, earlier.name, name) for each in earlier.shards)
            continue
        for batch in read_documents(part, settings):
            kept = _drop(batch, repeated, num_read, duplicates.counted_as) if duplicates else batch
            num_read += len(batch.texts)
            if kept.counts:
                counts.setdefault(name, Counter()).update(kept.counts)
            if len(kept.texts):
                yield _PlainDocuments(name, kept)


def _drop(batch: Documents, repeated: set[int], first: int, counted_as: str) -> Documents:
    """Return a batch without repeated documents; its first document has the number `first` in the split."""
    kept = np.array([i for i in range(len(batch.texts)) if first + i not in repeated], np.int64)
    counts = batch.counts + Counter({counted_as: len(batch.texts) - len(kept)})
    return Documents(batch.texts.take(kept), batch.offsets[kept], counts)


def _group_by_size(
    batches: Iterable[_PlainDocuments | EncodedDocuments], split_bytes: int
) -> Iterator[list[_PlainDocuments | EncodedDocuments]]:
    """Yield groups of batches, each large enough for a shard; the last one may be smaller or empty."""
    group: list[_PlainDocuments | EncodedDocuments] = []
    size = 0
    for batch in batches:
        group.append(batch)
        size += batch.size
        if size >= split_bytes:
            yield group
            group, size = [], 0
    yield group


def _encode_group(
    group: Sequence[_PlainDocuments | EncodedDocuments], tokenizer: Tokenizer, settings: TokenizeConfig
) -> EncodedDocuments | None:
    """Return the documents of a group, all of them encoded; None if there are none."""
    parts: list[EncodedDocuments] = []
    for is_encoded, run in groupby(group, lambda batch: isinstance(batch, EncodedDocuments)):
        if is_encoded:
            parts += [batch for batch in run if isinstance(batch, EncodedDocuments) and len(batch.ends)]
        else:
            plain = [batch for batch in run if isinstance(batch, _PlainDocuments)]
            parts.append(_encode_batches(plain, tokenizer, settings.max_piece_bytes))
    return EncodedDocuments.join(parts) if parts else None


def _encode_batches(
    batches: Sequence[_PlainDocuments], tokenizer: Tokenizer, max_piece_bytes: int | None
) -> EncodedDocuments:
    texts = Texts.join([batch.documents.texts for batch in batches])
    # PySpark sets this variable to the cores of a task; a process outside of Spark may use all cores.
    ids, offsets = tokenizer.encode_batch(texts, parallel=os.environ.get("OMP_NUM_THREADS") != "1")
    names = list(dict.fromkeys(batch.name for batch in batches))
    sources = np.array([names.index(batch.name) for batch in batches], np.uint32)
    return EncodedDocuments(
        np.insert(ids, offsets[1:], tokenizer.end_of_text),
        offsets[1:] + np.arange(1, len(offsets)),
        np.repeat(sources, [len(batch.documents.texts) for batch in batches]),
        np.concatenate([batch.documents.offsets for batch in batches]).astype(np.uint64),
        texts.sizes.astype(np.uint32),
        texts.hashes(),
        names,
        keys_of_documents(texts, max_piece_bytes) if max_piece_bytes else None,
    )
