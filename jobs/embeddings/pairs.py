"""The vocabulary of the embeddings, and the pairs of neighbouring tokens that they are trained on.

As in word2vec (Mikolov et al. 2013, arXiv:1310.4546), rare tokens are left out and frequent ones are subsampled. The
window of each token has a random size, so that near neighbours count more. Windows do not span documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TokenRows = npt.NDArray[np.int64]
"""Indices of tokens in the vocabulary, which are rows of every matrix of vectors."""

_NOISE_POWER = 0.75


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that get vectors: row i of every matrix of vectors belongs to token `ids[i]`."""

    ids: npt.NDArray[np.int64]
    """Token ids, ascending."""
    counts: npt.NDArray[np.int64]
    """The number of occurrences of each in the corpus."""

    @classmethod
    def of(cls, counts: npt.NDArray[np.int64], min_count: int, end_of_text: int) -> Vocabulary:
        """Select the tokens that occur at least `min_count` times, without end-of-text; `counts` is by token id."""
        kept = counts >= min_count
        kept[end_of_text] = False
        ids = np.flatnonzero(kept)
        return cls(ids, counts[ids])

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: npt.NDArray[np.integer]) -> TokenRows:
        """Return the row of each token id; -1 for tokens without a vector."""
        at = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def keep_probability(self, subsample: float) -> npt.NDArray[np.float64]:
        """Return the probability of keeping an occurrence of each token: 1 if its share is below `subsample`."""
        if not subsample:
            return np.ones(len(self))
        ratio = subsample * self.counts.sum() / self.counts
        return np.asarray(np.minimum(1.0, np.sqrt(ratio) + ratio))

    def noise(self) -> npt.NDArray[np.float64]:
        """Return the probability of drawing each token as a negative sample: by its count to the power of 3/4."""
        weights = self.counts.astype(np.float64) ** _NOISE_POWER
        return np.asarray(weights / weights.sum())


def skip_gram_pairs(
    rows: TokenRows, documents: TokenRows, window: int, rng: np.random.Generator
) -> tuple[TokenRows, TokenRows]:
    """Return all pairs of a token and a neighbour in its window, shuffled.

    Args:
        rows: A stream of tokens.
        documents: The number of the document of each token.
        window: The maximum reach of a token's window to either side; the reach is drawn from 1 to this number.
        rng: Draws the reaches and the order.

    Returns:
        Tokens and their neighbours, two arrays of one length.
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
