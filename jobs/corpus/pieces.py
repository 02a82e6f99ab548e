"""Cuts long documents into pieces, at places that depend only on the text around each place.

A place is a position between two characters. A document is cut at a place if there is no better place within a quarter
of the largest size (`tokenize.max_piece_bytes`) on either side. Places after blank lines are best, then places after
line ends, after spaces, and between other characters. Among places of the same kind, the lower hash of the 32 bytes
around the place wins. So an insertion early in a document does not move the later cuts, and pieces without changes
stay the same documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from jobs.corpus.documents import Documents
from jobs.corpus.texts import IS_SPACE, Texts

_Values = npt.NDArray[np.uint64]

_CHUNK_BYTES = 1 << 20
_AROUND = 16  # bytes on each side that the hash of a place depends on
_FACTORS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)
_NEVER = np.uint64(2**64 - 1)


def cut_documents(batch: Documents, max_bytes: int) -> Documents:
    """Cut the documents of a batch that are longer than `max_bytes`. A piece keeps the offset of the whole document.

    A piece has no whitespace at its ends, like any document.
    """
    sizes = batch.texts.sizes
    if not (sizes > max_bytes).any():
        return batch
    begins, ends, documents = list[int](), list[int](), list[int]()
    for i, (begin, size) in enumerate(zip(batch.texts.begins.tolist(), sizes.tolist(), strict=True)):
        pieces = find_pieces(batch.texts[i], max_bytes) if size > max_bytes else [(0, size)]
        begins += (begin + first for first, _ in pieces)
        ends += (begin + last for _, last in pieces)
        documents += [i] * len(pieces)
    texts = Texts(batch.texts.data, np.array(begins, np.int64), np.array(ends, np.int64))
    counts = batch.counts + Counter(divided_documents=int((sizes > max_bytes).sum()))
    return Documents(texts, batch.offsets[documents], counts)


def find_pieces(text: bytes, max_bytes: int) -> list[tuple[int, int]]:
    """Divide a text that is longer than `max_bytes` into pieces. Return the begin and the end of each piece."""
    borders = [0, *_find_cuts(text, max_bytes), len(text)]
    pieces = []
    for begin, end in pairwise(borders):
        piece = text[begin:end]
        if stripped := piece.strip():
            first = begin + len(piece) - len(piece.lstrip())
            pieces.append((first, first + len(stripped)))
    return pieces


def _find_cuts(text: bytes, max_bytes: int) -> Iterator[int]:
    """Yield the places to cut, in ascending order. They are at least a quarter of `max_bytes` apart."""
    places = _Places(text)
    reach = max_bytes // 4
    begin = 0
    for end in [*_find_minima(places, reach), len(text)]:
        while end - begin > max_bytes:  # such as a text that repeats itself, where no place is better than others
            first, last = begin + reach, min(begin + max_bytes, end - reach)
            begin = first + int(places.values(first, last + 1).argmin())
            yield begin
        if end < len(text):
            yield end
        begin = end


def _find_minima(places: _Places, reach: int) -> Iterator[int]:
    """Yield each place whose value is the lowest of all places less than `reach` bytes away, on either side.

    Among equal values, the first place wins. In a block of `reach` bytes, only one place can be yielded: the first with
    the lowest value in the block. So only these places are compared with their surroundings.
    """
    for start in range(reach, places.size - reach + 1, _CHUNK_BYTES // reach * reach):
        stop = min(start + _CHUNK_BYTES // reach * reach, places.size - reach + 1)
        low = start - reach + 1
        values = places.values(low, min(stop + reach, places.size))
        for block in range(start - low, stop - low, reach):
            at = block + int(values[block : min(block + reach, stop - low)].argmin())
            before, after = values[at - reach + 1 : at], values[at + 1 : at + reach]
            if values[at] < before.min(initial=_NEVER) and values[at] <= after.min(initial=_NEVER):
                yield low + at


class _Places:
    """The places at which a text may be cut. Each place has a value, and a lower value is better."""

    def __init__(self, text: bytes) -> None:
        self.size = len(text)
        padded = bytes(_AROUND) + text + bytes(_AROUND)
        self._bytes = np.frombuffer(padded, np.uint8)
        # self._words[i] is made of the 8 bytes of `padded` from the offset i on.
        self._words = np.ndarray(len(padded) - 7, "<u8", padded, strides=1)

    def values(self, first: int, last: int) -> _Values:
        """Return the values of the places `first` to `last` - 1. Place i is just before byte i of the text."""
        mixed = np.zeros(last - first, np.uint64)
        for i, factor in enumerate(_FACTORS):
            start = first + 8 * i  # the words at 16 and 8 bytes before each place, at it, and 8 bytes after it
            mixed += self._words[start : start + len(mixed)] * np.uint64(factor)
            mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(_FACTORS[0])
        here, before, earlier = (self._bytes[first + _AROUND - back : last + _AROUND - back] for back in (0, 1, 2))
        is_line = before == ord("\n")
        rank = 3 - IS_SPACE[before].astype(np.uint64) - is_line - (is_line & (earlier == ord("\n")))
        values: _Values = (mixed >> np.uint64(3)) | (rank << np.uint64(61))
        values[(here & 0xC0) == 0x80] = _NEVER  # inside a UTF-8 character
        return values
