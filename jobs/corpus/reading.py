"""Reads the documents of a corpus from files of any supported format: all documents, or an even sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.documents import Documents, read_text
from jobs.corpus.filters import filter_documents, has_filters
from jobs.corpus.ids import ids_as_words
from jobs.corpus.pieces import cut_documents
from jobs.corpus.records import read_json_lines, read_parquet
from jobs.corpus.texts import Texts
from jobs.sources.utf8 import replace_invalid

NO_DOCUMENT = (
    "the tokenize.* filters removed every document of the corpus; relax the filters, or give more text if the documents"
    " are forgotten (nightjar forget lists them)"
)
"""The error message if the filters and `nightjar forget` leave no document of a corpus."""
_MIN_CUT_BYTES = 1 << 12


def read_documents(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    """Read the documents that begin in a range of a file, in batches that fit in memory.

    Raises:
        InputError: if the file cannot be read, or a record has no text.
    """
    batches = _read(part, settings)
    if has_filters(settings):
        batches = (filter_documents(batch, settings, part.source.marks) for batch in batches)
    if settings.max_piece_bytes:
        batches = (cut_documents(batch, settings.max_piece_bytes) for batch in batches)
    if part.source.forgotten:
        forgotten = np.array(part.source.forgotten, np.uint64)
        batches = (_drop_forgotten(batch, forgotten) for batch in batches)
    yield from batches


def _drop_forgotten(batch: Documents, forgotten: npt.NDArray[np.uint64]) -> Documents:
    kept = ~np.isin(batch.texts.hashes(), forgotten)
    if kept.all():
        return batch
    counts = batch.counts + Counter(forgotten_documents=int((~kept).sum()))
    return Documents(batch.texts.take(kept), batch.offsets[kept], counts)


def _read(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    if part.source.format == "jsonl":
        yield from read_json_lines(part, settings)
    elif part.source.format == "parquet":
        yield from read_parquet(part, settings)
    else:
        for batch in read_text(part, settings.documents):
            valid = _replace_invalid(batch) if settings.invalid_utf8 == "replace" else batch
            yield ids_as_words(valid) if settings.input == "ids" else valid


def _replace_invalid(batch: Documents) -> Documents:
    pairs = [replace_invalid(text) for text in batch.texts]
    counts = batch.counts + Counter(replaced_letters=sum(count for _, count in pairs))
    return replace(batch, texts=Texts.of(text for text, _ in pairs), counts=counts)


def sample_documents(parts: Sequence[ByteRange], *, share: float, settings: TokenizeConfig) -> list[bytes]:
    """Return a sample of the documents of an input split: about `share` (0 to 1) of the split's bytes.

    The sample is the same in every run. A document in the sample may be cut short.
    """
    if share >= 1:
        return [text for part in parts for batch in read_documents(part, settings) for text in batch.texts]
    sample: list[bytes] = []
    seen = taken = 0
    first = b""
    for text, weight in _weighted_texts(parts, share, settings):
        seen += weight
        first = first or text
        room = int(seen * share) - taken
        if text and room >= min(len(text), _MIN_CUT_BYTES):  # never a short fragment of a document
            sample.append(_cut(text, room))
            taken += len(sample[-1])
    return sample or [_cut(first, int(seen * share))]


def _cut(text: bytes, size: int) -> bytes:
    """Return at most `size` bytes from the beginning of a text. Do not end inside a character."""
    return text if len(text) <= size else text[:size].decode(errors="ignore").encode()


def _weighted_texts(parts: Sequence[ByteRange], share: float, settings: TokenizeConfig) -> Iterator[tuple[bytes, int]]:
    """Yield texts, and with each text its weight: the number of bytes of the corpus that it represents.

    Each document has its size as weight, except in plain text files. There, only the beginning of a range is read, and
    it represents the whole range: an empty text, whose weight is the size of the range, comes before the documents of
    the beginning, whose weights are 0.
    """
    for part in parts:
        if part.source.format != "txt" or part.source.compression:
            yield from ((text, len(text)) for batch in read_documents(part, settings) for text in batch.texts)
            continue
        yield b"", part.size
        beginning = replace(part, end=part.start + min(part.size, int(part.size * share) + 1))
        yield from ((text, 0) for batch in read_documents(beginning, settings) for text in batch.texts)
