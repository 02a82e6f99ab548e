"""Skip-gram with negative sampling (Mikolov et al. 2013, arXiv:1310.4546), as batches of matrix products.

Rare tokens are left out, and frequent tokens are subsampled. Each token's window has a random size, so that near
neighbours count more. A window does not extend beyond its document. Training makes the dot product of the vectors of
two neighbours large, and the dot product of the vectors of a token and a random token small.

Batches make training fast, and differ from the original algorithm in two ways. A batch is divided into groups of pairs,
and the pairs of a group share their negative samples (Ji et al. 2016, arXiv:1604.04661). The gradients of a token are
summed over the batch before its vector is updated. If a token has more than `_MAX_GRADIENTS` gradients, this sum would
overshoot, so it is replaced by `_MAX_GRADIENTS` times the mean gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch code
from torch import Tensor

TokenRows = npt.NDArray[np.int64]
"""Indices of tokens in a `Vocabulary`. They are also the tokens' rows in every matrix of vectors."""
Vectors = npt.NDArray[np.float32]
"""Vectors of tokens, of shape (number of tokens, size)."""

_NOISE_POWER = 0.75
_BATCH_PAIRS = 1024
_GROUP_PAIRS = 64
_GROUP_NEGATIVES = 16
_MAX_GRADIENTS = 16


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that get vectors: row i of every matrix of vectors belongs to token `ids[i]`."""

    ids: npt.NDArray[np.int64]
    """Token ids, ascending."""
    counts: npt.NDArray[np.int64]
    """How often each of these tokens occurs in the text to train on."""

    @classmethod
    def of(cls, counts: npt.NDArray[np.int64], min_count: int, end_of_text: int) -> Vocabulary:
        """Select the tokens that occur at least `min_count` times, except end-of-text. `counts` has an entry per id."""
        kept = counts >= min_count
        kept[end_of_text] = False
        ids = np.flatnonzero(kept)
        return cls(ids, counts[ids])

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: npt.NDArray[np.integer]) -> TokenRows:
        """Return the row of each token in `ids`. The row is -1 for tokens without a vector."""
        at = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def keep_probability(self, subsample: float) -> npt.NDArray[np.float64]:
        """Return, for each token, the probability that subsampling keeps an occurrence of it.

        It is 1 for tokens whose share of all occurrences is at most `subsample`. If `subsample` is 0, it is 1 for all.
        """
        if not subsample:
            return np.ones(len(self))
        ratio = subsample * self.counts.sum() / self.counts
        return np.asarray(np.minimum(1.0, np.sqrt(ratio) + ratio))

    def noise(self) -> npt.NDArray[np.float64]:
        """Return the probability of drawing each token as a negative sample: proportional to its count ** (3/4)."""
        weights = self.counts.astype(np.float64) ** _NOISE_POWER
        return np.asarray(weights / weights.sum())


def skip_gram_pairs(
    rows: TokenRows, documents: TokenRows, window: int, rng: np.random.Generator
) -> tuple[TokenRows, TokenRows]:
    """Return all pairs of a token and a neighbour in its window, shuffled: an array of tokens and one of neighbours.

    A token's window extends over a random number of tokens, from 1 to `window`, on either side. ``documents[i]`` is the
    number of the document that contains token ``rows[i]``.
    """
    reach = rng.integers(1, window + 1, len(rows))
    centers, contexts = [], []
    for distance in range(1, min(window, len(rows) - 1) + 1):
        left, right = slice(None, -distance), slice(distance, None)
        together = documents[left] == documents[right]
        for near, far in ((left, right), (right, left)):
            chosen = together & (reach[near] >= distance)
            centers.append(rows[near][chosen])
            contexts.append(rows[far][chosen])
    empty = np.zeros(0, np.int64)
    order = rng.permutation(sum(map(len, centers)))
    return np.concatenate([empty, *centers])[order], np.concatenate([empty, *contexts])[order]


@dataclass(frozen=True)
class Weights:
    """The two vectors of each token: one as center, one as context. The vectors as center are the embeddings.

    Each matrix has the shape (V, D): number of tokens, size of a vector.
    """

    centers: Vectors
    contexts: Vectors

    @classmethod
    def initial(cls, num_tokens: int, size: int, seed: int) -> Weights:
        """Return weights before training: small random centers, and contexts of zeros."""
        uniform = np.random.default_rng(seed).random((num_tokens, size), np.float32)
        return cls(((uniform - 0.5) / size).astype(np.float32), np.zeros((num_tokens, size), np.float32))


class SkipGram:
    """Trains a copy of the given weights, by skip-gram with negative sampling."""

    def __init__(
        self, weights: Weights, noise: npt.NDArray[np.float64], num_negatives: int, rng: np.random.Generator
    ) -> None:
        self._centers, self._contexts = (
            torch.from_numpy(matrix.copy()) for matrix in (weights.centers, weights.contexts)
        )
        self._cumulative = np.cumsum(noise)
        self._weight_of_negative = num_negatives / _GROUP_NEGATIVES
        self._rng = rng

    @property
    def weights(self) -> Weights:
        """The current weights. The arrays are views, so further training changes them."""
        return Weights(self._centers.numpy(), self._contexts.numpy())

    def train(self, centers: TokenRows, contexts: TokenRows, first_rate: float, last_rate: float) -> float:
        """Train on the pairs (``centers[i]``, ``contexts[i]``) in order, and return the sum of their losses, in nats.

        The learning rate falls linearly from `first_rate` to `last_rate`.
        """
        if not len(centers):
            return 0.0
        whole = -(-len(centers) // _GROUP_PAIRS) * _GROUP_PAIRS  # the first pairs are repeated to fill the last group
        pairs = torch.from_numpy(np.resize(np.stack((centers, contexts), axis=1), (whole, 2)))
        starts = range(0, whole, _BATCH_PAIRS)
        rates = np.linspace(first_rate, last_rate, len(starts)).tolist()
        batches = (pairs[start : start + _BATCH_PAIRS].unbind(1) for start in starts)
        with _one_thread():
            losses = [self._step(own, near, rate) for (own, near), rate in zip(batches, rates, strict=True)]
        return sum(losses) * len(centers) / whole

    def _step(self, centers: Tensor, contexts: Tensor, rate: float) -> float:
        """Train on one batch with the loss ``-log s(u·v) - k E[log s(-u·n)]``, where s is the logistic function.

        u is the vector of the center, v of the context, and n of a negative sample. k is the number of negatives. The
        method returns the sum of the losses of all pairs.
        """
        negatives = self._draw_negatives(len(centers) // _GROUP_PAIRS)  # (G, N)
        own, near, far = self._centers[centers], self._contexts[contexts], self._contexts[negatives]
        grouped = own.view(len(negatives), _GROUP_PAIRS, -1)  # (G, S, D)
        positive = (own * near).sum(1, keepdim=True)  # (B, 1)
        negative = grouped @ far.transpose(1, 2)  # (G, S, N)
        pull = positive.sigmoid() - 1
        push = negative.sigmoid() * self._weight_of_negative
        _move(self._centers, centers, pull * near + (push @ far).view_as(own), rate)
        of_contexts = torch.cat((pull * own, (push.transpose(1, 2) @ grouped).flatten(0, 1)))
        _move(self._contexts, torch.cat((contexts, negatives.flatten())), of_contexts, rate)
        return float(F.softplus(-positive).sum() + self._weight_of_negative * F.softplus(negative).sum())

    def _draw_negatives(self, groups: int) -> Tensor:
        drawn = np.searchsorted(self._cumulative, self._rng.random((groups, _GROUP_NEGATIVES)), side="right")
        return torch.from_numpy(drawn.clip(max=len(self._cumulative) - 1))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread, because batches are so small that a second thread mostly waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _move(matrix: Tensor, rows: Tensor, gradients: Tensor, rate: float) -> None:
    """Update rows of `matrix`: subtract the learning rate times the sum of each row's gradients.

    For a row with more than `_MAX_GRADIENTS` gradients, use `_MAX_GRADIENTS` times their mean instead of the sum.
    """
    _, inverse, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    scale = -rate / (counts / _MAX_GRADIENTS).clamp(min=1)
    matrix.index_add_(0, rows, gradients * scale[inverse, None])
