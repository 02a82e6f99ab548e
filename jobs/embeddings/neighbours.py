"""Nearest neighbours: the tokens whose vectors point in the same direction, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.embeddings.files import Embeddings
from jobs.errors import InputError


class Neighbours:
    """The nearest tokens of a token, by cosine."""

    def __init__(self, embeddings: Embeddings) -> None:
        norms = np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
        self._directions = embeddings.vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        self._tokens = embeddings.tokens
        self._rows = {token: row for row, token in enumerate(embeddings.tokens)}

    def __contains__(self, token: str) -> bool:
        return token in self._rows

    def cosine(self, token: str, other: str) -> float:
        """Return the cosine of the angle between the vectors of two tokens."""
        return float(self._directions[self._rows[token]] @ self._directions[self._rows[other]])

    def nearest(self, token: str, count: int = 8) -> list[tuple[str, float]]:
        """Return the tokens nearest to `token`, without itself, each with its cosine."""
        cosines = self._directions @ self._directions[self._rows[token]]
        cosines[self._rows[token]] = -np.inf
        order = np.argsort(-cosines)[:count]
        return [(self._tokens[row], float(cosines[row])) for row in order if np.isfinite(cosines[row])]


def find_token(
    word: str, encode: Callable[[str], npt.NDArray[Any]], names: Sequence[str], neighbours: Neighbours
) -> str:
    """Return the name of the token that is `word`, as it occurs inside a text, or else at its beginning."""
    for text in (f" {word}", word):
        ids = encode(text)
        if len(ids) == 1 and names[int(ids[0])] in neighbours:
            return names[int(ids[0])]
    raise InputError(f"'{word}' is not one token with a vector: it is rare, or consists of several tokens; try another")
