"""Measures contamination: the share of the n-grams of the validation text that also occur in the training text.

N-grams lie inside documents and are compared by hash. A sample of the validation n-grams, of bounded size, is chosen by
hash. Then each task looks for the sampled n-grams in the training text of some token shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from jobs.datasets.streams import StreamRule, open_stream
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
    """Return the statistics of contamination. Each task reads one of the `groups` of token shards.

    If `n` is 0, no n-grams are compared. The share is None if no n-grams were compared.
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
    """Return a sample of the hashes of the validation n-grams in some token shards.

    A hash is in the sample if its upper 32 bits have no bit in common with `mask`.
    """
    selected = (hashes for entry in entries for hashes in _select(entry, rule, "valid", n, mask))
    return np.concatenate([np.zeros(0, np.uint64), *selected])


def find_ngrams(entries: Sequence[FileEntry], *, rule: StreamRule, n: int, mask: int, wanted: Hashes) -> Hashes:
    """Return those of the `wanted` hashes that occur in the training text of some token shards.

    `wanted` must be ascending.
    """
    is_found = np.zeros(len(wanted), np.bool_)
    if len(wanted):
        for hashes in (hashes for entry in entries for hashes in _select(entry, rule, "train", n, mask)):
            places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
            is_found[places[wanted[places] == hashes]] = True
    return wanted[is_found]


def hash_ngrams(ids: TokenIds, ends: npt.NDArray[np.int64], n: int) -> Hashes:
    """Return the hashes of all n-grams inside documents. No n-gram contains the end-of-text token of its document.

    `ids` are the tokens of consecutive documents. `ends` are the positions in `ids` at which documents end. Positions
    outside `ids` are allowed.
    """
    if len(ids) < n:
        return np.zeros(0, np.uint64)
    ends = ends[ends > 0]
    end_of_each = np.repeat(ends, np.diff(np.minimum(ends, len(ids)), prepend=0))
    is_inside = end_of_each[: len(ids) - n + 1] > np.arange(n, len(ids) + 1)
    hashes = _hash_polynomials(ids.astype(np.uint64) + np.uint64(1), n)[is_inside]
    hashes ^= hashes >> np.uint64(32)
    return np.asarray(hashes * np.uint64(_BASE))


def _select(entry: FileEntry, rule: StreamRule, side: Side, n: int, mask: int) -> Iterator[Hashes]:
    """Yield the sampled hashes of one side's n-grams in a token shard, in chunks (see `sample_ngrams`)."""
    stream = open_stream(
        entry, replace(rule, over="stream"), side
    )  # includes documents that are too short for a window
    ends = np.cumsum(stream.lengths)
    for start, ids in stream.chunks(overlap=n - 1):
        hashes = hash_ngrams(ids, ends - start, n)
        # The upper bits depend on all tokens of the n-gram.
        yield hashes[(hashes >> np.uint64(32)) & np.uint64(mask) == 0]


def _hash_polynomials(values: Hashes, n: int) -> Hashes:
    """Return a polynomial hash of every `n` consecutive values: a polynomial in `_BASE`, modulo 2**64."""
    if n == 1:
        return values
    half = n // 2
    of_half = _hash_polynomials(values, half)
    both = of_half[:-half] * np.uint64(pow(_BASE, half, 2**64)) + of_half[half:]
    if n % 2 == 0:
        return both
    return both[:-1] * np.uint64(_BASE) + values[n - 1 :]
