"""Which tokens are learned, and the pairs of neighbours that they are learned from.

As in word2vec (Mikolov et al. 2013, arXiv:1310.4546): rare tokens are left out, frequent ones are thinned out, and the
window of each token is drawn anew, so that near neighbours count more. Windows do not cross documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
_NOISE_POWER = 0.75


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that get vectors: row i of every matrix belongs to `ids[i]`."""

    ids: npt.NDArray[np.int64]
    """Token ids, ascending."""
    counts: npt.NDArray[np.int64]
    """How often each occurs in the corpus."""

    @classmethod
    def of(cls, counts: npt.NDArray[np.int64], min_count: int, end_of_text: int) -> Vocabulary:
        """What occurs at least `min_count` times, without the end-of-text token; `counts` is by token id."""
        kept = counts >= min_count
        kept[end_of_text] = False
        ids = np.flatnonzero(kept)
        return cls(ids, counts[ids])

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: npt.NDArray[np.integer]) -> Rows:
        """The row of each token id; -1 for tokens that have none."""
        at = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def keep_probability(self, subsample: float) -> npt.NDArray[np.float64]:
        """With which probability an occurrence is kept; tokens rarer than a share of `subsample` are all kept."""
        if not subsample:
            return np.ones(len(self))
        ratio = subsample * self.counts.sum() / self.counts
        return np.asarray(np.minimum(1.0, np.sqrt(ratio) + ratio))

    def noise(self) -> npt.NDArray[np.float64]:
        """With which probability each token is drawn as a negative sample: by its count to the power 3/4."""
        weights = self.counts.astype(np.float64) ** _NOISE_POWER
        return np.asarray(weights / weights.sum())


def skip_gram_pairs(rows: Rows, documents: Rows, window: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """All pairs of a token and a neighbour in its window, shuffled.

    Args:
        rows: A stream of tokens, as rows of the vocabulary.
        documents: The number of the document that each stands in.
        window: Each token's window reaches between 1 and so many tokens to either side.
        rng: Draws the windows and the order.

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
