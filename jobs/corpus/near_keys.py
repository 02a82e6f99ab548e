"""Keys of texts, of which nearly equal texts have one or more in common."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jobs.corpus.texts import IS_SPACE, Texts

Keys = npt.NDArray[np.uint64]

NUM_KEYS = 14
_HASHES_PER_KEY = 8
_NGRAM_WORDS = 5
_DRAWN = np.random.Generator(np.random.PCG64(20_240_625)).integers(0, 2**64, (2, NUM_KEYS * _HASHES_PER_KEY), np.uint64)
_FACTORS, _SUMMANDS = _DRAWN[0] | np.uint64(1), _DRAWN[1]


def near_keys(texts: Texts) -> Keys:
    """Return the MinHash keys (Broder 1997) of each text, of shape (len(texts), 14); no text may be blank.

    A text is the set of its n-grams of five words. The least value of a hash function over all n-grams is equal in two
    texts with a probability of s, their Jaccard similarity. The least values of eight functions make a key. Two texts
    have a key in common with a probability of ``1 - (1 - s**8)**14``: 0.92 where s is 0.8, and 0.05 where s is 0.5.
    FineWeb uses the same numbers (https://arxiv.org/abs/2406.17557).
    """
    ngrams, first = _hash_ngrams(texts)
    least = np.empty((len(texts), len(_FACTORS)), np.uint64)
    for i, (factor, summand) in enumerate(zip(_FACTORS, _SUMMANDS, strict=True)):
        least[:, i] = np.minimum.reduceat(ngrams * factor + summand, first) if len(texts) else 0
    mixed = (least ^ least >> np.uint64(32)) * _FACTORS
    return np.asarray(mixed.reshape(len(texts), NUM_KEYS, _HASHES_PER_KEY).sum(axis=2) * _FACTORS[:NUM_KEYS])


def _hash_ngrams(texts: Texts) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return the hashes of all n-grams, and the index of each text's first one; a shorter text is one n-gram."""
    words, first = _split_words(texts)
    counts = np.diff(first, append=len(words))
    hashes = words.hashes()
    # Words that follow belong to the next text where fewer than five are left in this one.
    left = np.repeat(first + counts, counts) - np.arange(len(words))
    ngrams = np.zeros(len(words), np.uint64)
    for i in range(_NGRAM_WORDS):
        ahead = np.concatenate([hashes[i:], np.zeros(min(i, len(hashes)), np.uint64)])
        ngrams += np.where(left > i, ahead, 0) * _FACTORS[i]
        ngrams ^= ngrams >> np.uint64(31)
    is_first = left == np.repeat(counts, counts)
    kept = is_first | (left >= _NGRAM_WORDS)
    return ngrams[kept], np.flatnonzero(is_first[kept])


def _split_words(texts: Texts) -> tuple[Texts, npt.NDArray[np.int64]]:
    """Return the words of all texts, divided by whitespace, and the index of each text's first word."""
    data = b" " + b" ".join(texts) + b" "
    is_space = IS_SPACE[np.frombuffer(data, np.uint8)]
    borders = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    begins, ends = borders[::2], borders[1::2]
    starts = np.cumsum(texts.sizes + 1) - texts.sizes
    return Texts(data, begins, ends), np.searchsorted(begins, starts)
