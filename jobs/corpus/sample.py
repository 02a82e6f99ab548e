"""An even sample of a corpus: the same share of each split, and the same sample at every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobs.config import TokenizeConfig
from jobs.corpus.reading import read_documents
from jobs.corpus.splits import ByteRange

_MIN_CUT_BYTES = 1 << 12


def sample_documents(parts: Sequence[ByteRange], *, share: float, settings: TokenizeConfig) -> list[bytes]:
    """Return documents of a split that make up a `share` of its bytes; the last ones may be cut short.

    Raises:
        InputError: if a file cannot be read.
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
    """Return the first `size` bytes of a text, without an incomplete character at the end."""
    return text if len(text) <= size else text[:size].decode(errors="ignore").encode()


def _weighted_texts(parts: Sequence[ByteRange], share: float, settings: TokenizeConfig) -> Iterator[tuple[bytes, int]]:
    """Yield texts, each with the number of bytes of the corpus that it represents.

    The beginning of a range of plain text represents the whole range, so the rest is not read.
    """
    for part in parts:
        if part.source.format != "txt" or part.source.compression:
            yield from ((text, len(text)) for batch in read_documents(part, settings) for text in batch.texts)
            continue
        yield b"", part.size
        beginning = replace(part, end=part.start + min(part.size, int(part.size * share) + 1))
        yield from ((text, 0) for batch in read_documents(beginning, settings) for text in batch.texts)
