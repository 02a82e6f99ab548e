"""An even sample of a corpus: pieces at equal distances over all its bytes, the same at every run."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from jobs.text.corpus import Source, open_source, read_at
from jobs.text.documents import Unit, split_documents

_PIECE_BYTES = 1 << 16
_MAX_PIECES = 256


def sample_documents(sources: Sequence[Source], max_bytes: int, unit: Unit) -> Iterator[bytes]:
    """Documents of at most `max_bytes` in all: the whole corpus if it is no larger, else evenly spaced pieces of it.

    Args:
        sources: Files, none of them empty.
        max_bytes: Size of the sample.
        unit: What a document is; those at the ends of a piece may be cut, though not within a letter.

    Raises:
        InputError: if a file cannot be read.
    """
    total = sum(source.size for source in sources)
    whole = total <= max_bytes
    num_pieces = 1 if whole else max(1, min(_MAX_PIECES, max_bytes // _PIECE_BYTES))
    length = total if whole else max_bytes // num_pieces
    starts = list(accumulate((source.size for source in sources[:-1]), initial=0))
    for begin in (piece * total // num_pieces for piece in range(num_pieces)):
        end = begin + length
        for i in range(bisect_right(starts, begin) - 1, bisect_left(starts, end)):
            first, last = max(begin - starts[i], 0), min(end - starts[i], sources[i].size)
            yield from _read_whole_letters(sources[i], first, last - first, unit)


def _read_whole_letters(source: Source, start: int, size: int, unit: Unit) -> list[bytes]:
    with open_source(source) as file:
        data = read_at(file, start, size)
    text = data.decode("utf-8", errors="ignore").strip("\ufeff \t\r\n\v\f").encode()  # what is cut in two is ignored
    return split_documents(text, start, unit)[0] if text else []
