"""Skip-gram with negative sampling (Mikolov et al. 2013, arXiv:1310.4546), as batches of matrix products.

A pair of neighbours should have a large product of vectors, a token and one drawn at random a small one. Batches make
that fast, and differ from the original in two ways: the pairs of a group share their negative samples (Ji et al. 2016,
arXiv:1604.04661), and what a batch says about a token is summed before its vector moves. Of frequent tokens a batch
says so much that the sum would overshoot; so it is scaled down to `_MOST_AT_ONCE` gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code knows it by
from torch import Tensor

from jobs.embeddings.pairs import Rows

Matrix = npt.NDArray[np.float32]
_BATCH_PAIRS = 1024
_GROUP_PAIRS = 64
_GROUP_NEGATIVES = 16
_MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Weights:
    """The two vectors of each token, as itself and as a neighbour: (V, D) each. The first are the embeddings."""

    centers: Matrix
    contexts: Matrix

    @classmethod
    def initial(cls, num_tokens: int, size: int, seed: int) -> Weights:
        """Small random vectors, and zeros for the neighbours."""
        uniform = np.random.default_rng(seed).random((num_tokens, size), np.float32)
        return cls(((uniform - 0.5) / size).astype(np.float32), np.zeros((num_tokens, size), np.float32))


class SkipGram:
    """Trains a copy of `weights`."""

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
        """The vectors as they are now, as views."""
        return Weights(self._centers.numpy(), self._contexts.numpy())

    def train(self, centers: Rows, contexts: Rows, first_rate: float, last_rate: float) -> float:
        """Train on pairs, in their order, while the learning rate falls from `first_rate` to `last_rate`.

        Returns:
            The sum of the pairs' losses, in nats.
        """
        if not len(centers):
            return 0.0
        whole = -(-len(centers) // _GROUP_PAIRS) * _GROUP_PAIRS  # the last group is filled up from the beginning
        pairs = torch.from_numpy(np.resize(np.stack((centers, contexts), axis=1), (whole, 2)))
        starts = range(0, whole, _BATCH_PAIRS)
        rates = np.linspace(first_rate, last_rate, len(starts)).tolist()
        batches = (pairs[start : start + _BATCH_PAIRS].unbind(1) for start in starts)
        with _one_thread():
            losses = [self._step(own, near, rate) for (own, near), rate in zip(batches, rates, strict=True)]
        return sum(losses) * len(centers) / whole

    def _step(self, centers: Tensor, contexts: Tensor, rate: float) -> float:
        """One batch: gradients of ``-log s(u v) - k E[log s(-u n)]``, s the logistic function, at all its pairs."""
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
    """A batch is too small to be shared: a second thread waits more than it works, and on a busy machine it spins."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _move(matrix: Tensor, rows: Tensor, gradients: Tensor, rate: float) -> None:
    """Move rows of `matrix` against the sum of their gradients, or what `_MOST_AT_ONCE` of them make on average."""
    _, inverse, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    scale = -rate / (counts / _MOST_AT_ONCE).clamp(min=1)
    matrix.index_add_(0, rows, gradients * scale[inverse, None])
