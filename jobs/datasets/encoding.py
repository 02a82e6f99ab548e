"""Encodes the input splits of a corpus into token shards.

Documents that are already encoded in an earlier dataset are copied from there.
"""

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
    """The shards of an earlier dataset that contain the documents of a byte range, and perhaps other documents."""

    name: str
    """The name of the source in the earlier dataset."""
    shards: Sequence[FileEntry]


@dataclass(frozen=True)
class SplitTask:
    """An input split to encode, and those of its byte ranges that are already encoded in an earlier dataset."""

    number: int
    parts: Sequence[ByteRange]
    reused: Mapping[RangeKey, EncodedRange] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedSplit:
    """The shards of an input split, and statistics of its documents."""

    shards: list[WrittenShard]
    counts: dict[str, Counter[str]]
    """For each source that was read, the counts of irregularities in it, such as empty or dropped documents."""
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
    """Encode the documents of an input split and write them as shards below `folder_uri`.

    Each shard holds about `tokenize.split_bytes` of text. A split is larger if it is a file that cannot be divided. It
    becomes several shards, and does not need more memory. If all byte ranges of the split are reused, the written
    shards equal those in the dataset at `reused_uri`.
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
        """The number of bytes of text."""
        return int(self.documents.texts.sizes.sum())


def _read_split(
    task: SplitTask,
    settings: TokenizeConfig,
    reused_uri: str,
    duplicates: Duplicates | None,
    counts: dict[str, Counter[str]],
) -> Iterator[_PlainDocuments | EncodedDocuments]:
    """Yield the documents of an input split in order, and add the irregularities of each source to `counts`.

    Documents of reused byte ranges are copied, already encoded, from the dataset at `reused_uri`.
    """
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
    """Return a batch without the documents whose numbers are in `repeated`.

    Documents are numbered within the input split. The first document of the batch has the number `first`. Dropped
    documents are counted under the name `counted_as`.
    """
    kept = np.array([i for i in range(len(batch.texts)) if first + i not in repeated], np.int64)
    counts = batch.counts + Counter({counted_as: len(batch.texts) - len(kept)})
    return Documents(batch.texts.take(kept), batch.offsets[kept], counts)


def _group_by_size(
    batches: Iterable[_PlainDocuments | EncodedDocuments], split_bytes: int
) -> Iterator[list[_PlainDocuments | EncodedDocuments]]:
    """Yield groups of batches, each large enough for a shard. The last group may be smaller or empty."""
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
    """Encode the documents of a group that are not encoded yet, and return all documents of the group.

    Return None if the group has no documents.
    """
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
    # PySpark sets OMP_NUM_THREADS to the number of cores of a task. A process outside Spark may use all cores.
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
