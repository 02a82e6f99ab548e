"""An even sample of a corpus: the same share of each part of it, the same at every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobs.config import TokenizeConfig
from jobs.corpus.reading import read_documents
from jobs.corpus.splits import ByteRange

_PIECE_BYTES = 1 << 12


def sample_documents(parts: Sequence[ByteRange], *, share: float, settings: TokenizeConfig) -> list[bytes]:
    """The documents of some parts of a corpus, or a `share` of their bytes, the last of which may be cut.

    Raises:
        InputError: if a file cannot be read.
    """
    if share >= 1:
        return [text for part in parts for batch in read_documents(part, settings) for text in batch.texts]
    sample: list[bytes] = []
    seen = taken = 0
    first = b""
    for text, weight in _texts_to_choose_from(parts, share, settings):
        seen += weight
        first = first or text
        room = int(seen * share) - taken
        if text and room >= min(len(text), _PIECE_BYTES):  # whole documents or long pieces of them, never shreds
            sample.append(_cut(text, room))
            taken += len(sample[-1])
    return sample or [_cut(first, int(seen * share))]


def _cut(text: bytes, size: int) -> bytes:
    """The beginning of a text, without a part of a letter at its end."""
    return text if len(text) <= size else text[:size].decode(errors="ignore").encode()


def _texts_to_choose_from(
    parts: Sequence[ByteRange], share: float, settings: TokenizeConfig
) -> Iterator[tuple[bytes, int]]:
    """Texts, each with the number of bytes that it stands for.

    A range of plain text need not be read to its end: its beginning stands for all of it.
    """
    for part in parts:
        if part.source.format != "txt" or part.source.compression:
            yield from ((text, len(text)) for batch in read_documents(part, settings) for text in batch.texts)
            continue
        yield b"", part.size
        beginning = replace(part, end=part.start + min(part.size, int(part.size * share) + 1))
        yield from ((text, 0) for batch in read_documents(beginning, settings) for text in batch.texts)
