"""Computes MinHash keys of texts. Nearly equal texts very probably have at least one key in common."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jobs.corpus.texts import IS_SPACE, Texts

Keys = npt.NDArray[np.uint64]

NUM_KEYS = 14
_HASHES_PER_KEY = 8
_NGRAM_WORDS = 5
_PASSAGE_WORDS, _HASHES_PER_PASSAGE_KEY = 13, 2
_DRAWN = np.random.Generator(np.random.PCG64(20_240_625)).integers(0, 2**64, (2, NUM_KEYS * _HASHES_PER_KEY), np.uint64)
_FACTORS, _SUMMANDS = _DRAWN[0] | np.uint64(1), _DRAWN[1]


def near_keys(texts: Texts) -> Keys:
    """Return 14 MinHash keys (Broder 1997) for each text, of shape (len(texts), 14). No text may be blank.

    A text counts as the set of its n-grams of five words. Let s be the Jaccard similarity of two such sets. The lowest
    value of a hash function over all n-grams is equal in both texts with a probability of s. A key combines the lowest
    values of eight functions. Two texts have a key in common with a probability of ``1 - (1 - s**8)**14``: 0.92 if s is
    0.8, and 0.05 if s is 0.5. FineWeb uses the same numbers (https://arxiv.org/abs/2406.17557).
    """
    return _min_hash(texts, _NGRAM_WORDS, _HASHES_PER_KEY)


def keys_of_documents(texts: Texts, max_piece_bytes: int) -> Keys:
    """Return the MinHash keys of documents, of shape (len(texts), 14), after long documents were cut into pieces.

    An edit of a long document can move a cut. A piece then holds parts of two pieces of the earlier version, and is
    less similar to each. So texts that are long enough to be pieces get keys that match at a lower similarity: a key
    combines the lowest values of two functions over n-grams of 13 words. Two such texts have a key in common with a
    probability of ``1 - (1 - s**2)**14``: 0.98 if s is 0.5, and 0.13 if s is 0.1. Shorter texts get the keys of
    `near_keys`, because short texts with different content are often this similar.
    """
    is_long = texts.sizes >= max_piece_bytes // 8
    keys = np.empty((len(texts), NUM_KEYS), np.uint64)
    keys[~is_long] = near_keys(texts.take(~is_long))
    keys[is_long] = _min_hash(texts.take(is_long), _PASSAGE_WORDS, _HASHES_PER_PASSAGE_KEY)
    return keys


def _min_hash(texts: Texts, num_words: int, hashes_per_key: int) -> Keys:
    ngrams, first = _hash_ngrams(texts, num_words)
    factors, summands = (drawn[: NUM_KEYS * hashes_per_key] for drawn in (_FACTORS, _SUMMANDS))
    least = np.empty((len(texts), len(factors)), np.uint64)
    for i, (factor, summand) in enumerate(zip(factors, summands, strict=True)):
        least[:, i] = np.minimum.reduceat(ngrams * factor + summand, first) if len(texts) else 0
    mixed = (least ^ least >> np.uint64(32)) * factors
    return np.asarray(mixed.reshape(len(texts), NUM_KEYS, hashes_per_key).sum(axis=2) * factors[:NUM_KEYS])


def _hash_ngrams(texts: Texts, num_words: int) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return the hashes of all n-grams of `num_words` words, and the index of each text's first n-gram.

    A text of fewer than `num_words` words is one n-gram.
    """
    words, first = _split_words(texts)
    counts = np.diff(first, append=len(words))
    hashes = words.hashes()
    # Where fewer than num_words words are left in a text, the words that follow belong to the next text.
    left = np.repeat(first + counts, counts) - np.arange(len(words))
    ngrams = np.zeros(len(words), np.uint64)
    for i in range(num_words):
        ahead = np.concatenate([hashes[i:], np.zeros(min(i, len(hashes)), np.uint64)])
        ngrams += np.where(left > i, ahead, 0) * _FACTORS[i]
        ngrams ^= ngrams >> np.uint64(31)
    is_first = left == np.repeat(counts, counts)
    kept = is_first | (left >= num_words)
    return ngrams[kept], np.flatnonzero(is_first[kept])


def _split_words(texts: Texts) -> tuple[Texts, npt.NDArray[np.int64]]:
    """Return the words of all texts, divided by whitespace, and the index of each text's first word."""
    data = b" " + b" ".join(texts) + b" "
    is_space = IS_SPACE[np.frombuffer(data, np.uint8)]
    borders = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    begins, ends = borders[::2], borders[1::2]
    starts = np.cumsum(texts.sizes + 1) - texts.sizes
    return Texts(data, begins, ends), np.searchsorted(begins, starts)
