"""Many texts in one buffer: where each begins and ends. No Python object is made for a text until it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
IS_SPACE = np.array([bytes([byte]).isspace() for byte in range(256)])
"""Which bytes are whitespace: ASCII whitespace throughout."""

_LONG_BYTES = 1 << 10
_HASHED_TOGETHER = 1 << 12  # so that what is computed stays in the processor's cache
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64
_FIRST_BYTES = np.array([2 ** (8 * size) - 1 for size in range(8)], np.uint64)


class Texts(Sequence[bytes]):
    """Texts, the first n of which are ``data[begins[i]:ends[i]]``; a sequence of bytes as any other."""

    def __init__(self, data: bytes, begins: Places, ends: Places) -> None:
        self.data = data
        """What holds all texts, and may hold more."""
        self.begins = begins
        """Where each text begins in `data`."""
        self.ends = ends
        """Where each text ends in `data`."""

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Texts:
        """Put texts into one buffer; those that are in one already stay there."""
        if isinstance(texts, Texts):
            return texts
        listed = list(texts)
        ends = np.cumsum(np.fromiter(map(len, listed), np.int64, len(listed)))
        return cls(b"".join(listed), np.concatenate([ends[:0], [0], ends])[:-1].astype(np.int64), ends)

    @classmethod
    def join(cls, parts: Sequence[Texts]) -> Texts:
        """All texts of all parts, in their order; there is at least one part."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.data) for part in parts)]).tolist()
        begins = [part.begins + start for part, start in zip(parts, starts, strict=False)]
        ends = [part.ends + start for part, start in zip(parts, starts, strict=False)]
        return cls(b"".join(part.data for part in parts), np.concatenate(begins), np.concatenate(ends))

    @property
    def sizes(self) -> Places:
        """The number of bytes of each text."""
        return self.ends - self.begins

    def take(self, which: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Texts:
        """Those texts that an index or a mask of `numpy` chooses."""
        return Texts(self.data, self.begins[which], self.ends[which])

    def hashes(self) -> npt.NDArray[np.uint64]:
        """A hash of each text: of long ones BLAKE2, of short ones a sum over their words of 8 bytes, each mixed."""
        hashes = np.zeros(len(self), np.uint64)
        words = np.ndarray(len(self.data) + 1, "<u8", self.data + bytes(8), strides=1)  # a word from each byte on
        for group in range(0, len(self), _HASHED_TOGETHER):
            some = slice(group, group + _HASHED_TOGETHER)
            hashes[some] = _hash_short(words, self.begins[some], self.sizes[some])
        for i in np.flatnonzero(self.sizes >= _LONG_BYTES):
            hashes[i] = int.from_bytes(hashlib.blake2b(self[int(i)], digest_size=8).digest(), "little")
        return hashes

    def packed(self) -> npt.NDArray[np.uint8]:
        """The bytes of all texts, which lie in order, with nothing before, between and behind them."""
        data = np.frombuffer(self.data, np.uint8)
        before = np.concatenate([[0], self.ends])
        gaps = np.concatenate([self.begins, [len(data)]]) - before
        if not gaps.any():
            return data
        kept = np.ones(len(data), np.bool_)
        kept[np.repeat(before - (np.cumsum(gaps) - gaps), gaps) + np.arange(gaps.sum())] = False
        return data[kept]

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> bytes | Texts:
        if isinstance(index, slice):
            return Texts(self.data, self.begins[index], self.ends[index])
        return self.data[self.begins[index] : self.ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        data = self.data
        return (data[begin:end] for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True))


def _hash_short(words: npt.NDArray[np.uint64], begins: Places, sizes: Places) -> npt.NDArray[np.uint64]:
    """Hashes of texts that begin and have so many bytes; of those that are long the hash of nothing."""
    sizes = np.where(sizes < _LONG_BYTES, sizes, 0)
    counts = sizes // 8 + 1  # the last word holds what is left, and how much that is
    first = np.cumsum(counts) - counts
    place = np.arange(counts.sum()) - np.repeat(first, counts)
    words = words[np.repeat(begins, counts) + 8 * place]
    last, left = first + counts - 1, sizes % 8
    words[last] = (words[last] & _FIRST_BYTES[left]) ^ (left.astype(np.uint64) << np.uint64(56))
    words += (place.view(np.uint64) + np.uint64(1)) * _MIX[0]
    return _mixed(np.add.reduceat(_mixed(words, 32, _MIX[1]), first), 29, _MIX[2])


def _mixed(words: npt.NDArray[np.uint64], shift: int, factor: np.uint64) -> npt.NDArray[np.uint64]:
    """Other words, one for each, of which every bit depends on many bits; made in place."""
    words ^= words >> np.uint64(shift)
    words *= factor
    words ^= words >> np.uint64(shift)
    return words
