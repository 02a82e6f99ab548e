"""Reads the documents of a corpus file, whatever its format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from jobs.config import TokenizeConfig
from jobs.corpus.documents import Documents, read_text
from jobs.corpus.filters import filter_documents, has_filters
from jobs.corpus.formats.ids import ids_as_words
from jobs.corpus.formats.records import read_json_lines, read_parquet
from jobs.corpus.splits import ByteRange
from jobs.corpus.texts import Texts
from jobs.sources.utf8 import replace_invalid


def read_documents(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    """Read the documents that begin in a range of a file, in batches that fit in memory.

    Raises:
        InputError: if the file cannot be read, or a record lacks its text.
    """
    batches = _read(part, settings)
    if has_filters(settings):
        batches = (filter_documents(batch, settings, part.source.body) for batch in batches)
    yield from batches


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
