"""Baselines that a model must beat: the losses of a unigram model (single tokens) and a bigram model (token pairs).

Both models are fitted on the training text and evaluated on the validation text. The bigram model predicts
``p(next | token) = (pairs + a * p(next)) / (tokens + a)``: counts with a Dirichlet prior around the distribution of
single tokens (MacKay and Peto 1995). The strength `a` of the prior is the power of two with the lowest loss on a sample
of training pairs. When such a pair is predicted, one of its occurrences is taken out of the counts. The loss is that of
a sample of validation pairs. Tasks count only the pairs that occur in the two samples, whose sizes are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from jobs.datasets.shards import group_shards
from jobs.datasets.streams import SideTally, StreamRule, open_stream
from jobs.datasets.windows import SIDES, Side
from jobs.engine.base import Engine
from jobs.lake.manifest import FileEntry

Counts = npt.NDArray[np.int64]

_STRENGTHS = 2.0 ** np.arange(21)
MAX_SAMPLED_PAIRS = 2**17
_MAX_BIGRAM_TOKENS = 2**26


def entropy(counts: Counts) -> float:
    """Return the entropy in nats of the distribution of tokens; `counts` holds the occurrences of each token."""
    seen = counts[counts > 0]
    total = seen.sum()
    return float(np.log(total) - (seen * np.log(seen)).sum() / total)


def unigram_accuracy(train: Counts, valid: Counts) -> float:
    """Return the accuracy of a model that always predicts the most frequent training token.

    `train` and `valid` hold the number of occurrences of each token.
    """
    return float(valid[train.argmax()] / valid.sum())


def unigram_loss(train: Counts, valid: Counts) -> float:
    """Return the loss of the unigram model in nats per validation token.

    The model adds one to the training count of each token.
    """
    log_probability = np.log(train + 1.0) - np.log(train.sum() + float(len(train)))
    return float(-(valid * log_probability).sum() / valid.sum())


def bigram_loss(
    entries: Sequence[FileEntry], rule: StreamRule, tallies: Mapping[Side, SideTally], engine: Engine
) -> float:
    """Return the loss of the bigram model in nats per validation token.

    If the training text is long, pairs are read only from evenly spaced token shards.
    """
    entries = entries[:: -(-tallies["train"].num_tokens // _MAX_BIGRAM_TOKENS)]
    sampled = {}
    for side in SIDES:
        every = -(-tallies[side].num_tokens // MAX_SAMPLED_PAIRS)
        sample = partial(sample_pairs, rule=rule, side=side, every=every)
        groups = group_shards(entries, 16 * MAX_SAMPLED_PAIRS)
        sampled[side] = PairCounts.merge(engine.map(sample, groups, f"sample pairs of {side}"))
    wanted = np.union1d(sampled["train"].keys, sampled["valid"].keys)
    count = partial(count_pairs, rule=rule, wanted=wanted)
    groups = group_shards(entries, 16 * (len(wanted) + rule.vocab_size))
    counted = engine.map(count, groups, "count pairs of training")
    pairs, firsts = (np.sum(counts, axis=0) for counts in zip(*counted, strict=True))
    model = BigramModel(PairCounts(wanted, pairs), firsts, tallies["train"].token_counts)
    return model.loss(sampled["valid"], sampled["train"])


@dataclass(frozen=True)
class PairCounts:
    """Pairs of neighbouring tokens with their numbers of occurrences.

    Each pair is stored as a key: ``first * vocab_size + second``. Keys are distinct and ascending.
    """

    keys: Counts
    counts: Counts

    @classmethod
    def merge(cls, parts: Sequence[PairCounts]) -> PairCounts:
        """Return the pairs of all parts. The occurrences of a pair are summed over the parts."""
        keys = np.concatenate([np.zeros(0, np.int64), *(part.keys for part in parts)])
        distinct, inverse = np.unique(keys, return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([np.zeros(0), *(part.counts for part in parts)]), len(distinct))
        return cls(distinct, counts.astype(np.int64))


@dataclass(frozen=True)
class BigramModel:
    """A bigram model, as counts of the training text.

    `pairs` counts pairs of tokens. `firsts` counts how often each token is the first of a pair. `tokens` counts how
    often each token occurs.
    """

    pairs: PairCounts
    firsts: Counts
    tokens: Counts

    def loss(self, valid: PairCounts, train: PairCounts) -> float:
        """Return the loss on the pairs `valid` in nats per token.

        The strength of the prior is the one with the lowest loss on the pairs `train`. The model's `pairs` must contain
        all pairs of `valid` and `train`.
        """
        strength = min(_STRENGTHS.tolist(), key=lambda strength: self.loss_at(train, strength, left_out=1))
        return self.loss_at(valid, strength, left_out=0)

    def loss_at(self, some: PairCounts, strength: float, left_out: int) -> float:
        """Return the loss on the pairs `some` in nats per token, if the prior has this `strength`.

        When a pair is predicted, `left_out` of its occurrences are taken out of the counts.
        """
        first, second = np.divmod(some.keys, len(self.tokens))
        pair = self.pairs.counts[np.searchsorted(self.pairs.keys, some.keys)] - left_out
        unigram = (self.tokens[second] - left_out + 1) / (self.tokens.sum() - left_out + len(self.tokens))
        probability = (pair + strength * unigram) / (self.firsts[first] - left_out + strength)
        return float(-(some.counts * np.log(probability)).sum() / max(1, int(some.counts.sum())))


def sample_pairs(entries: Sequence[FileEntry], *, rule: StreamRule, side: Side, every: int) -> PairCounts:
    """Count every n-th pair of one side in some token shards, where n is `every`."""
    counted = []
    for entry in entries:
        num_seen = 0
        for keys in _read_pairs(entry, rule, side):
            counted.append(PairCounts(*np.unique(keys[-num_seen % every :: every], return_counts=True)))
            num_seen += len(keys)
    return PairCounts.merge(counted)


def count_pairs(entries: Sequence[FileEntry], *, rule: StreamRule, wanted: Counts) -> tuple[Counts, Counts]:
    """Count pairs of tokens, and the first tokens of pairs, in the training text of some token shards.

    `wanted` holds the keys of pairs (see `PairCounts`), ascending.

    Returns:
        How often each wanted pair occurs, and how often each token is the first of any pair.
    """
    found, firsts = np.zeros(len(wanted), np.int64), np.zeros(rule.vocab_size, np.int64)
    for keys in (keys for entry in entries for keys in _read_pairs(entry, rule, "train")):
        firsts += np.bincount(keys // rule.vocab_size, minlength=rule.vocab_size)
        indices = np.minimum(np.searchsorted(wanted, keys), max(0, len(wanted) - 1))
        if len(wanted):
            found += np.bincount(indices[wanted[indices] == keys], minlength=len(wanted))
    return found, firsts


def _read_pairs(entry: FileEntry, rule: StreamRule, side: Side) -> Iterator[Counts]:
    """Yield the keys of the token pairs of one side in a token shard, in chunks.

    If windows lie inside documents, pairs that cross the end of a document are left out.
    """
    stream = open_stream(entry, rule, side)
    ends = np.cumsum(stream.lengths)
    for start, ids in stream.chunks(overlap=1):
        keys = ids[:-1].astype(np.int64) * rule.vocab_size + ids[1:]
        last = ends[(ends > start) & (ends <= start + len(keys))] - 1 - start
        yield keys if rule.over == "stream" else np.delete(keys, last)
