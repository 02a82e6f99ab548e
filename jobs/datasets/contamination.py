"""Contamination: the share of the n-grams of the validation text that the training text contains too.

N-grams lie inside documents and are compared by hash. A sample of bounded size, chosen by hash, is drawn from those of
validation; then each task looks for them in some shards of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from jobs.datasets.shards import TokenShard
from jobs.datasets.streams import StreamRule
from jobs.datasets.windows import Side
from jobs.engine.base import Engine
from jobs.lake.manifest import FileEntry
from jobs.metrics.stats import WindowsStats
from jobs.tokenizer.tokenizer import TokenIds

Hashes = npt.NDArray[np.uint64]

MAX_COMPARED_NGRAMS = 2**20
_BASE = 0x9E3779B97F4A7C15  # odd, so that products keep all bits of a token


def measure_contamination(
    groups: Sequence[Sequence[FileEntry]], rule: StreamRule, num_valid_tokens: int, n: int, engine: Engine
) -> WindowsStats:
    """Return the statistics of contamination; each task compares one of the `groups` of token shards.

    With an `n` of 0, no n-grams are compared. The share is None if there are none.
    """
    if not n:
        return {"leak_ngram": 0, "ngram_leak": None, "num_compared_ngrams": 0}
    mask = (1 << (num_valid_tokens // MAX_COMPARED_NGRAMS).bit_length()) - 1
    sample = partial(sample_ngrams, rule=rule, n=n, mask=mask)
    sampled = np.concatenate(engine.map(sample, groups, "sample n-grams of validation"))
    wanted, counts = np.unique(sampled, return_counts=True)
    find = partial(find_ngrams, rule=rule, n=n, mask=mask, wanted=wanted)
    found = np.isin(wanted, np.concatenate(engine.map(find, groups, "find n-grams in training")))
    share = float(counts[found].sum() / counts.sum()) if len(wanted) else None
    return {"leak_ngram": n, "ngram_leak": share, "num_compared_ngrams": len(sampled)}


def sample_ngrams(entries: Sequence[FileEntry], *, rule: StreamRule, n: int, mask: int) -> Hashes:
    """Return the hashes of the validation n-grams in some token shards that have none of the bits of `mask`."""
    return np.concatenate([np.zeros(0, np.uint64), *(_select(entry, rule, "valid", n, mask) for entry in entries)])


def find_ngrams(entries: Sequence[FileEntry], *, rule: StreamRule, n: int, mask: int, wanted: Hashes) -> Hashes:
    """Return the `wanted` hashes, which are sorted, that n-grams of training in some token shards have."""
    found = [np.intersect1d(_select(entry, rule, "train", n, mask), wanted) for entry in entries]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def hash_ngrams(ids: TokenIds, lengths: npt.NDArray[np.int64], n: int) -> Hashes:
    """Return the hashes of all n-grams inside documents; none contains the end-of-text token of its document.

    `ids` has the tokens of all documents, and `lengths` the number of tokens of each.
    """
    if len(ids) < n:
        return np.zeros(0, np.uint64)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))  # tokens from here to the document's end
    hashes = _hash_polynomials(ids.astype(np.uint64) + np.uint64(1), n)[left[: len(ids) - n + 1] > n]
    hashes ^= hashes >> np.uint64(32)
    return np.asarray(hashes * np.uint64(_BASE))


def _select(entry: FileEntry, rule: StreamRule, side: Side, n: int, mask: int) -> Hashes:
    """Return the hashes of a side's n-grams in a shard that have none of the bits of `mask`."""
    shard = TokenShard.open(rule.tokens_uri, entry)
    kept = rule.split.is_valid(shard) == (side == "valid")
    hashes = hash_ngrams(shard.ids[np.repeat(kept, shard.lengths)], shard.lengths[kept], n)
    # The upper bits depend on all tokens of the n-gram.
    return np.asarray(hashes[(hashes >> np.uint64(32)) & np.uint64(mask) == 0])


def _hash_polynomials(values: Hashes, n: int) -> Hashes:
    """Return, for each position, the sum of the next n values times powers of the base, modulo 2**64."""
    if n == 1:
        return values
    half = n // 2
    of_half = _hash_polynomials(values, half)
    both = of_half[:-half] * np.uint64(pow(_BASE, half, 2**64)) + of_half[half:]
    if n % 2 == 0:
        return both
    return both[:-1] * np.uint64(_BASE) + values[n - 1 :]
