"""The bigram baseline: the loss of a model that knows which token follows which, and nothing from further back.

Fitted on the training side, evaluated on validation. In ``p(next | token) = (pairs + a * p(next)) / (tokens + a)``,
which is counts with a Dirichlet prior around the unigram distribution (MacKay and Peto 1995), only the strength `a` is
free: it is the one that predicts a sample of training pairs best, each left out of the counts. So no table of all pairs
is needed: tasks count those that stand in samples of bounded size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.datasets.streams import StreamRule, read_side
from jobs.datasets.windows import Side
from jobs.lake.store import FileEntry

Counts = npt.NDArray[np.int64]

STRENGTHS = 2.0 ** np.arange(21)


@dataclass(frozen=True)
class Pairs:
    """Pairs of neighbouring tokens, each as ``first * vocab_size + second``, ascending, and how often each occurs."""

    keys: Counts
    counts: Counts

    @classmethod
    def of(cls, parts: Sequence[Pairs]) -> Pairs:
        """All of them together."""
        keys = np.concatenate([np.zeros(0, np.int64), *(part.keys for part in parts)])
        distinct, places = np.unique(keys, return_inverse=True)
        counts = np.bincount(places, np.concatenate([np.zeros(0), *(part.counts for part in parts)]), len(distinct))
        return cls(distinct, counts.astype(np.int64))


def sample_pairs(entries: Sequence[FileEntry], *, rule: StreamRule, side: Side, every: int) -> Pairs:
    """Each `every`-th pair of one side in some token shards.

    Raises:
        DamagedError: if a shard is missing, truncated or altered.
    """
    sampled = (_pairs(entry, rule, side)[::every] for entry in entries)
    return Pairs.of([Pairs(*np.unique(keys, return_counts=True)) for keys in sampled])


def count_pairs(entries: Sequence[FileEntry], *, rule: StreamRule, wanted: Counts) -> tuple[Counts, Counts]:
    """How often each of the `wanted` pairs, ascending, is in training in some token shards; how often each first token.

    Raises:
        DamagedError: if a shard is missing, truncated or altered.
    """
    found, firsts = np.zeros(len(wanted), np.int64), np.zeros(rule.vocab_size, np.int64)
    for entry in entries:
        keys = _pairs(entry, rule, "train")
        firsts += np.bincount(keys // rule.vocab_size, minlength=rule.vocab_size)
        places = np.minimum(np.searchsorted(wanted, keys), max(0, len(wanted) - 1))
        if len(wanted):
            found += np.bincount(places[wanted[places] == keys], minlength=len(wanted))
    return found, firsts


@dataclass(frozen=True)
class Bigram:
    """What is known of training: the counts of `pairs`, of the first tokens of pairs, and of all tokens."""

    pairs: Pairs
    firsts: Counts
    tokens: Counts

    def loss(self, valid: Pairs, train: Pairs) -> float:
        """Nats per token over `valid`, with the strength that fits `train` best; all of them are among `pairs`."""
        strength = min(STRENGTHS, key=lambda strength: self._loss(train, strength, left_out=1))
        return self._loss(valid, strength, left_out=0)

    def _loss(self, some: Pairs, strength: float, left_out: int) -> float:
        """Nats per token over `some`, each of which is first taken out of the counts so many times."""
        first, second = np.divmod(some.keys, len(self.tokens))
        pair = self.pairs.counts[np.searchsorted(self.pairs.keys, some.keys)] - left_out
        unigram = (self.tokens[second] - left_out + 1) / (self.tokens.sum() - left_out + len(self.tokens))
        probability = (pair + strength * unigram) / (self.firsts[first] - left_out + strength)
        return float(-(some.counts * np.log(probability)).sum() / max(1, some.counts.sum()))


def _pairs(entry: FileEntry, rule: StreamRule, side: Side) -> Counts:
    """All pairs of one side in a token shard; where windows lie inside documents, those inside documents."""
    ids, lengths = read_side(entry, rule, side)
    keys = ids[:-1].astype(np.int64) * rule.vocab_size + ids[1:]
    return keys if rule.over == "stream" else np.delete(keys, np.cumsum(lengths)[:-1] - 1)
