"""MinHash (Broder 1997): documents that share most of their runs of words are found by equal keys.

A document is the set of its runs of five words. The least of the runs' hashes is equal in two documents with their
Jaccard similarity s as its probability; so it is with each of 112 hash functions. Eight of the least make a key. Two
documents have one of 14 keys in common with a probability of ``1 - (1 - s**8)**14``: 0.92 where s is 0.8, 0.05 where it
is 0.5. The numbers are those of FineWeb (https://arxiv.org/abs/2406.17557).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jobs.corpus.texts import IS_SPACE, Texts

NUM_KEYS = 14
_IN_A_KEY = 8
_WORDS_IN_A_RUN = 5
_DRAWN = np.random.Generator(np.random.PCG64(20_240_625)).integers(0, 2**64, (2, NUM_KEYS * _IN_A_KEY), np.uint64)
_FACTORS, _SUMMANDS = _DRAWN[0] | np.uint64(1), _DRAWN[1]


def near_keys(texts: Texts) -> npt.NDArray[np.uint64]:
    """The keys of each text, of shape (len(texts), 14); no text is blank, as no document is."""
    runs, first = _hashes_of_runs(texts)
    least = np.empty((len(texts), len(_FACTORS)), np.uint64)
    for i, (factor, summand) in enumerate(zip(_FACTORS, _SUMMANDS, strict=True)):
        least[:, i] = np.minimum.reduceat(runs * factor + summand, first) if len(texts) else 0
    mixed = (least ^ least >> np.uint64(32)) * _FACTORS
    return np.asarray(mixed.reshape(len(texts), NUM_KEYS, _IN_A_KEY).sum(axis=2) * _FACTORS[:NUM_KEYS])


def _hashes_of_runs(texts: Texts) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The hashes of all runs of words, text after text, and where each text's begin. Each text has a run."""
    words, first = _words(texts)
    counts = np.diff(first, append=len(words))
    hashes = words.hashes()
    # A text of fewer words is followed by those of the next ones, so its only run is made of what stands in it.
    left = np.repeat(first + counts, counts) - np.arange(len(words))
    runs = np.zeros(len(words), np.uint64)
    for i in range(_WORDS_IN_A_RUN):
        ahead = np.concatenate([hashes[i:], np.zeros(min(i, len(hashes)), np.uint64)])
        runs += np.where(left > i, ahead, 0) * _FACTORS[i]
        runs ^= runs >> np.uint64(31)
    is_first = left == np.repeat(counts, counts)
    kept = is_first | (left >= _WORDS_IN_A_RUN)
    return runs[kept], np.flatnonzero(is_first[kept])


def _words(texts: Texts) -> tuple[Texts, npt.NDArray[np.int64]]:
    """The words of all texts, which are what lies between whitespace, and which of them is the first of each text."""
    data = b" " + b" ".join(texts) + b" "
    is_space = IS_SPACE[np.frombuffer(data, np.uint8)]
    borders = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    begins, ends = borders[::2], borders[1::2]
    starts = np.cumsum(texts.sizes + 1) - texts.sizes
    return Texts(data, begins, ends), np.searchsorted(begins, starts)
