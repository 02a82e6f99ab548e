"""How much of the validation text stands word for word in the training text: the share of its n-grams found there.

N-grams lie inside documents. They are compared by hash, and so is chosen which of them are: a sample of bounded size of
those of validation, which each task of the second round looks for in some shards of training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jobs.datasets.shards import TokenShard
from jobs.datasets.streams import StreamRule
from jobs.datasets.windows import Side
from jobs.lake.store import FileEntry
from jobs.tokenizer.tokenizer import Ids

Hashes = npt.NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15  # odd, so that no token is lost in the product


def sample_ngrams(entries: Sequence[FileEntry], *, rule: StreamRule, n: int, mask: int) -> Hashes:
    """The hashes of the n-grams of validation in some token shards, as far as they have none of the bits of `mask`.

    Raises:
        DamagedError: if a shard is missing, truncated or altered.
    """
    return np.concatenate([np.zeros(0, np.uint64), *(_chosen(entry, rule, "valid", n, mask) for entry in entries)])


def find_ngrams(entries: Sequence[FileEntry], *, rule: StreamRule, n: int, mask: int, wanted: Hashes) -> Hashes:
    """Which of the `wanted` hashes, sorted, n-grams of training in some token shards have.

    Raises:
        DamagedError: if a shard is missing, truncated or altered.
    """
    found = [np.intersect1d(_chosen(entry, rule, "train", n, mask), wanted) for entry in entries]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def hash_ngrams(ids: Ids, lengths: npt.NDArray[np.int64], n: int) -> Hashes:
    """The hashes of all n-grams inside documents; the end-of-text token, the last of each document, is in none."""
    if len(ids) < n:
        return np.zeros(0, np.uint64)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))  # tokens from here to the document's end
    hashes = _polynomials(ids.astype(np.uint64) + np.uint64(1), n)[left[: len(ids) - n + 1] > n]
    hashes ^= hashes >> np.uint64(32)
    return np.asarray(hashes * np.uint64(_BASE))


def _chosen(entry: FileEntry, rule: StreamRule, side: Side, n: int, mask: int) -> Hashes:
    shard = TokenShard.open(rule.tokens_uri, entry)
    kept = rule.split.is_valid(shard) == (side == "valid")
    hashes = hash_ngrams(shard.ids[np.repeat(kept, shard.lengths)], shard.lengths[kept], n)
    # The upper bits depend on all of the n-gram.
    return np.asarray(hashes[(hashes >> np.uint64(32)) & np.uint64(mask) == 0])


def _polynomials(values: Hashes, n: int) -> Hashes:
    """At each place the sum of the next n values times powers of the base, modulo 2**64, in about log2(n) steps."""
    if n == 1:
        return values
    half = n // 2
    of_half = _polynomials(values, half)
    both = of_half[:-half] * np.uint64(pow(_BASE, half, 2**64)) + of_half[half:]
    if n % 2 == 0:
        return both
    return both[:-1] * np.uint64(_BASE) + values[n - 1 :]
