"""Splits of a corpus become token shards: what is new is encoded, what an earlier dataset has is taken over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from jobs.config import TokenizeConfig
from jobs.corpus.dedup.duplicates import Repetitions
from jobs.corpus.documents import Documents
from jobs.corpus.reading import read_documents
from jobs.corpus.splits import ByteRange
from jobs.corpus.texts import Texts
from jobs.datasets.shards import Rows, WrittenShard
from jobs.lake.store import FileEntry
from jobs.tokenizer.tokenizer import Ids, Tokenizer

Part = tuple[str, int, int]
"""Tells a part of a file from others of the corpus: name, start and end."""


def part_key(part: ByteRange) -> Part:
    """What tells `part` from others of the corpus."""
    return part.source.name, part.start, part.end


@dataclass(frozen=True)
class SplitItem:
    """A task: the number of the split, parts of files, and of those that need not be read the shards that have them."""

    number: int
    parts: Sequence[ByteRange]
    kept: Mapping[Part, Sequence[FileEntry]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tokenized:
    """What became of a task's parts of files."""

    shards: list[WrittenShard]
    counts: dict[str, Counter[str]]
    """What is unusual in the documents of each source that was read."""
    documents_by_length: Counter[int]
    """How many documents have how many tokens, the end-of-text token included."""


def write_token_shards(
    item: SplitItem,
    *,
    folder_uri: str,
    tokenizer: Tokenizer,
    settings: TokenizeConfig,
    kept_uri: str = "",
    repetitions: Repetitions | None = None,
) -> Tokenized:
    """Encode the documents that begin in some parts of files and write them as shards below `folder_uri`.

    There is a shard for about `tokenize.split_bytes` of text, so that a file that cannot be cut needs no more memory.
    A split of which everything is kept becomes the same shards as before, byte by byte.

    Args:
        item: The split.
        folder_uri: The dataset.
        tokenizer: What encodes.
        settings: How the files are read.
        kept_uri: The dataset that has what is kept.
        repetitions: Which documents are to be dropped since they came before.

    Raises:
        InputError: if a file cannot be read.
        DamagedError: if a shard that has what is kept is missing, truncated or altered.
    """
    done = Tokenized([], {}, Counter())
    pieces = _pieces(item, settings, kept_uri, repetitions, done.counts)
    for gathered in _gather(pieces, settings.split_bytes):
        if rows := _rows(gathered, tokenizer):
            stem = f"shards/{item.number:05d}-{len(done.shards):03d}"
            done.shards.append(rows.write(folder_uri, stem))
            done.documents_by_length.update(_counted(np.diff(rows.ends, prepend=0)))
    return done


def _counted(values: npt.NDArray[np.int64]) -> dict[int, int]:
    """How often each value occurs."""
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _pieces(
    item: SplitItem,
    settings: TokenizeConfig,
    kept_uri: str,
    repetitions: Repetitions | None,
    counts: dict[str, Counter[str]],
) -> Iterator[_Batch | Rows]:
    """What a split is made of, in order: documents that were read, and rows that are kept."""
    repeated = repetitions.of_split(item.number) if repetitions else set()
    num_read = 0
    for part in item.parts:
        name = part.source.name
        if part_key(part) in item.kept:
            yield from (Rows.of_source(kept_uri, entry, name) for entry in item.kept[part_key(part)])
            continue
        for whole in read_documents(part, settings):
            batch = _without(whole, repeated, num_read, repetitions.counted_as) if repetitions else whole
            num_read += len(whole.texts)
            if batch.counts:
                counts.setdefault(name, Counter()).update(batch.counts)
            if len(batch.texts):
                yield _Batch(name, batch)


def _gather(pieces: Iterable[_Batch | Rows], split_bytes: int) -> Iterator[list[_Batch | Rows]]:
    """Hand out so many pieces at a time as make a shard."""
    gathered: list[_Batch | Rows] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += piece.size
        if size >= split_bytes:
            yield gathered
            gathered, size = [], 0
    yield gathered


@dataclass(frozen=True)
class _Batch:
    """Documents of a source, not yet encoded."""

    name: str
    documents: Documents

    @property
    def size(self) -> int:
        """Bytes of text."""
        return int(self.documents.texts.sizes.sum())


def _without(batch: Documents, repeated: set[int], first: int, counted_as: str) -> Documents:
    """A batch, whose documents are counted from `first`, without those that are repeated."""
    kept = np.array([i for i in range(len(batch.texts)) if first + i not in repeated], np.int64)
    counts = batch.counts + Counter({counted_as: len(batch.texts) - len(kept)})
    return Documents(batch.texts.take(kept), batch.offsets[kept], counts)


def _rows(pieces: Sequence[_Batch | Rows], tokenizer: Tokenizer) -> Rows | None:
    """All pieces, encoded where they are not yet, one after the other; None if there is no document in them."""
    parts: list[Rows] = []
    for is_kept, run in groupby(pieces, lambda piece: isinstance(piece, Rows)):
        if is_kept:
            parts += [piece for piece in run if isinstance(piece, Rows) and len(piece.ends)]
        else:
            parts.append(_encode_batches([piece for piece in run if isinstance(piece, _Batch)], tokenizer))
    return Rows.join(parts) if parts else None


def _encode_batches(batches: Sequence[_Batch], tokenizer: Tokenizer) -> Rows:
    """The rows of some documents."""
    texts = Texts.join([batch.documents.texts for batch in batches])
    ids, ends = _encode(texts, tokenizer)
    names = list(dict.fromkeys(batch.name for batch in batches))
    sources = np.array([names.index(batch.name) for batch in batches], np.uint32)
    return Rows(
        ids,
        ends,
        np.repeat(sources, [len(batch.documents.texts) for batch in batches]),
        np.concatenate([batch.documents.offsets for batch in batches]).astype(np.uint64),
        texts.sizes.astype(np.uint32),
        texts.hashes(),
        names,
    )


def _encode(texts: Texts, tokenizer: Tokenizer) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Ids of all documents, each with the end-of-text token at its end, and where each document ends."""
    # PySpark sets this variable to the cores of a task; in a process of our own all cores are ours.
    parallel = os.environ.get("OMP_NUM_THREADS") != "1"
    ids, offsets = tokenizer.encode_batch(texts, parallel)
    ids = np.insert(ids, offsets[1:], tokenizer.end_of_text)
    return ids, offsets[1:] + np.arange(1, len(offsets))
