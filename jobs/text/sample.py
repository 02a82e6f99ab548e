"""An even sample of a corpus: the same share of each part of it, the same at every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobs.config import TokenizeConfig
from jobs.text.corpus import ByteRange
from jobs.text.reading import read_documents


def sample_documents(parts: Sequence[ByteRange], *, share: float, settings: TokenizeConfig) -> list[bytes]:
    """The documents of some parts of a corpus, or a `share` of their bytes, the last of which may be cut.

    Raises:
        InputError: if a file cannot be read.
    """
    if share >= 1:
        return [text for part in parts for batch in read_documents(part, settings) for text in batch.texts]
    sample: list[bytes] = []
    seen = taken = 0
    for text, weight in _texts_to_choose_from(parts, share, settings):
        seen += weight
        room = int(seen * share) - taken
        if room > 0 and text:
            sample.append(text if len(text) <= room else text[:room].decode(errors="ignore").encode())
            taken += len(sample[-1])
    return sample


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
