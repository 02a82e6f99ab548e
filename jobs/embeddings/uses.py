"""Uses embeddings: as initial weights of a model, and to show the nearest neighbours of a token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.embeddings.files import Embeddings
from jobs.embeddings.word2vec import Vectors
from jobs.errors import InputError

log = logging.getLogger(__name__)


def initial_weights(embeddings: Embeddings, names: Sequence[str], weights: Vectors, where: str) -> Vectors:
    """Return a copy of `weights` in which the row of each token that has an embedding is replaced by the embedding.

    Tokens are matched by name and never by id, because ids belong to one vocabulary. ``names[i]`` is the name of the
    token with id i. `weights` has the shape (vocabulary, size). The embeddings are scaled by one factor so that their
    standard deviation becomes that of `weights`: models are tuned to this deviation, and the vectors of word2vec are
    far longer. `where` names the file of the embeddings in the log.
    """
    pairs = match_tokens(embeddings, names, weights.shape[1], where)
    ids, rows = np.array(pairs).T
    chosen = embeddings.vectors[rows]
    started = weights.copy()
    started[ids] = chosen * (weights.std() / max(float(chosen.std()), float(np.finfo(np.float32).tiny)))
    log.info(
        "%d of the vocabulary's %d tokens start from the embeddings in %s; %d tokens of this file are not in the"
        " vocabulary",
        *(len(pairs), len(names), where, len(embeddings.tokens) - len(pairs)),
    )
    return started


def match_tokens(embeddings: Embeddings, names: Sequence[str] | None, size: int, where: str) -> list[tuple[int, int]]:
    """Return pairs of a token's id and the row of its embedding, for each token that has an embedding.

    ``names[i]`` is the name of the token with id i. If `names` is None, the vocabulary is not known yet: only check the
    size of the vectors, and return an empty list.

    Raises:
        InputError: if the vectors have another size, or no token of the vocabulary has an embedding. `where` names
            the file in the message.
    """
    found = embeddings.vectors.shape[1]
    if found != size:
        raise InputError(
            f"{where}: vectors of {found} numbers, but model.embedding_size={size}; set it to {found}, or give other"
            " embeddings"
        )
    if names is None:
        return []
    row_of = {token: row for row, token in enumerate(embeddings.tokens)}
    pairs = [(token_id, row_of[name]) for token_id, name in enumerate(names) if name in row_of]
    if not pairs:
        raise InputError(f"{where}: has none of the vocabulary's {len(names)} tokens; name tokens as in tokenizer.json")
    return pairs


class Neighbours:
    """Finds the tokens that are nearest to a token, by the cosine of their vectors."""

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
        """Return the `count` tokens nearest to `token`, the nearest first, each with its cosine. Leave out `token`."""
        cosines = self._directions @ self._directions[self._rows[token]]
        cosines[self._rows[token]] = -np.inf
        order = np.argsort(-cosines)[:count]
        return [(self._tokens[row], float(cosines[row])) for row in order if np.isfinite(cosines[row])]


def find_token(
    word: str, encode: Callable[[str], npt.NDArray[Any]], names: Sequence[str], neighbours: Neighbours
) -> str:
    """Return the name of the token that `word` becomes inside a text, after a space.

    If `word` becomes several tokens there, or a token without a vector, return the name of the token that `word`
    becomes at the beginning of a text.

    Raises:
        InputError: if `word` is not one token with a vector at the beginning of a text, either.
    """
    for text in (f" {word}", word):
        ids = encode(text)
        if len(ids) == 1 and names[int(ids[0])] in neighbours:
            return names[int(ids[0])]
    raise InputError(
        f"'{word}' is not one token with a vector: it is rare, or consists of several tokens; try another word"
    )
