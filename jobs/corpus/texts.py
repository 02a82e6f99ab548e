"""Holds many texts in one buffer, without a Python object for each text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]
IS_SPACE = np.array([bytes([byte]).isspace() for byte in range(256)])
"""For each of the 256 byte values: whether it is ASCII whitespace."""

_LONG_BYTES = 1 << 10
_HASHED_TOGETHER = 1 << 12  # texts at a time, so that intermediate arrays stay in the processor's cache
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64
_FIRST_BYTES = np.array([2 ** (8 * size) - 1 for size in range(8)], np.uint64)


class Texts(Sequence[bytes]):
    """A sequence of texts; text i is ``data[begins[i]:ends[i]]``."""

    def __init__(self, data: bytes, begins: Offsets, ends: Offsets) -> None:
        self.data = data
        """A buffer that holds all texts. Between the texts, it may hold other bytes."""
        self.begins = begins
        """The offset in `data` at which each text begins."""
        self.ends = ends
        """The offset in `data` at which each text ends."""

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Texts:
        """Return these texts in one buffer. If `texts` is already a `Texts`, return it unchanged."""
        if isinstance(texts, Texts):
            return texts
        listed = list(texts)
        ends = np.cumsum(np.fromiter(map(len, listed), np.int64, len(listed)))
        return cls(b"".join(listed), np.concatenate([ends[:0], [0], ends])[:-1].astype(np.int64), ends)

    @classmethod
    def join(cls, parts: Sequence[Texts]) -> Texts:
        """Return the texts of all parts, in their order. There must be at least one part."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.data) for part in parts)]).tolist()
        begins = [part.begins + start for part, start in zip(parts, starts, strict=False)]
        ends = [part.ends + start for part, start in zip(parts, starts, strict=False)]
        return cls(b"".join(part.data for part in parts), np.concatenate(begins), np.concatenate(ends))

    @property
    def sizes(self) -> Offsets:
        """The number of bytes of each text."""
        return self.ends - self.begins

    def take(self, which: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Texts:
        """Return the texts that an index array or a mask selects."""
        return Texts(self.data, self.begins[which], self.ends[which])

    def hashes(self) -> npt.NDArray[np.uint64]:
        """Return a 64-bit hash of each text: BLAKE2 for texts of 1 KiB or more, a sum of mixed 8-byte words for others.

        Token shards store these hashes. The split by hash, the fixed split and the search for duplicates use them, so
        another hash function would change their results.
        """
        hashes = np.zeros(len(self), np.uint64)
        # words[i] is made of the 8 bytes of `data` from the offset i on.
        words = np.ndarray(len(self.data) + 1, "<u8", self.data + bytes(8), strides=1)
        for group in range(0, len(self), _HASHED_TOGETHER):
            some = slice(group, group + _HASHED_TOGETHER)
            hashes[some] = _hash_short(words, self.begins[some], self.sizes[some])
        for i in np.flatnonzero(self.sizes >= _LONG_BYTES):
            hashes[i] = int.from_bytes(hashlib.blake2b(self[int(i)], digest_size=8).digest(), "little")
        return hashes

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return the bytes of all texts, without the bytes between them. The texts must be in the order of `data`."""
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


def _hash_short(words: npt.NDArray[np.uint64], begins: Offsets, sizes: Offsets) -> npt.NDArray[np.uint64]:
    """Return the hashes of texts of less than 1 KiB.

    Longer texts get the hash of an empty text, which the caller overwrites. `words[i]` is the 8 bytes at offset i.
    """
    sizes = np.where(sizes < _LONG_BYTES, sizes, 0)
    counts = sizes // 8 + 1  # the last word holds the remaining bytes and their number
    first = np.cumsum(counts) - counts
    index = np.arange(counts.sum()) - np.repeat(first, counts)
    words = words[np.repeat(begins, counts) + 8 * index]
    last, left = first + counts - 1, sizes % 8
    words[last] = (words[last] & _FIRST_BYTES[left]) ^ (left.astype(np.uint64) << np.uint64(56))
    words += (index.view(np.uint64) + np.uint64(1)) * _MIX[0]
    return _mixed(np.add.reduceat(_mixed(words, 32, _MIX[1]), first), 29, _MIX[2])


def _mixed(words: npt.NDArray[np.uint64], shift: int, factor: np.uint64) -> npt.NDArray[np.uint64]:
    """Mix the bits within each word, in place, so that each bit of the result depends on many bits of the word."""
    words ^= words >> np.uint64(shift)
    words *= factor
    words ^= words >> np.uint64(shift)
    return words
