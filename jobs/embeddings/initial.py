"""Initializes the weights of a model from embeddings."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from jobs.embeddings.files import Embeddings
from jobs.embeddings.word2vec import Vectors
from jobs.errors import InputError

log = logging.getLogger(__name__)


def initial_weights(embeddings: Embeddings, names: Sequence[str], weights: Vectors, where: str) -> Vectors:
    """Return `weights` with the rows of all tokens that have an embedding replaced by it.

    Tokens are matched by name, never by id, since ids belong to one vocabulary; `names` holds the name of each id. The
    embeddings, of the file `where`, are scaled by one factor to the standard deviation of `weights`, of shape
    (vocabulary, size): a model is tuned to that, and the vectors of word2vec are far longer.
    """
    found, wanted = embeddings.vectors.shape[1], weights.shape[1]
    if found != wanted:
        raise InputError(f"{where}: vectors of {found} numbers, but model.embedding_size={wanted}; make them equal")
    row_of = {token: row for row, token in enumerate(embeddings.tokens)}
    pairs = [(token_id, row_of[name]) for token_id, name in enumerate(names) if name in row_of]
    if not pairs:
        raise InputError(f"{where}: has none of the vocabulary's {len(names)} tokens; name tokens as in tokenizer.json")
    ids, rows = np.array(pairs).T
    chosen = embeddings.vectors[rows]
    started = weights.copy()
    started[ids] = chosen * (weights.std() / max(float(chosen.std()), float(np.finfo(np.float32).tiny)))
    log.info(
        "%d of %d tokens start from %s; %d of its tokens are not in the vocabulary",
        *(len(pairs), len(names), where, len(row_of) - len(pairs)),
    )
    return started
