"""Embeddings as the first weights of a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from jobs.embeddings.files import Embeddings
from jobs.embeddings.word2vec import Matrix
from jobs.errors import InputError

log = logging.getLogger(__name__)


def initial_weights(embeddings: Embeddings, names: Sequence[str], weights: Matrix, where: str) -> Matrix:
    """`weights`, with the rows of tokens that have an embedding replaced by it.

    Tokens are matched by name, never by id: ids belong to one vocabulary. The embeddings are scaled by one factor to
    the spread that `weights` have, since a model is tuned to that and word2vec's vectors are far longer.

    Args:
        embeddings: What was read.
        names: The name of each token id of the model's vocabulary.
        weights: The model's own first weights, (vocabulary, size).
        where: The embeddings' file, for messages.

    Raises:
        InputError: if the embeddings have another size, or no token of the vocabulary.
    """
    found, wanted = embeddings.vectors.shape[1], weights.shape[1]
    if found != wanted:
        raise InputError(f"{where}: vectors of {found} numbers; the model's have {wanted} (model.embedding_size)")
    row_of = {token: row for row, token in enumerate(embeddings.tokens)}
    pairs = [(token_id, row_of[name]) for token_id, name in enumerate(names) if name in row_of]
    if not pairs:
        raise InputError(f"{where}: has none of the vocabulary's {len(names)} tokens; they are named as tokenizer.json")
    ids, rows = np.array(pairs).T
    chosen = embeddings.vectors[rows]
    started = weights.copy()
    started[ids] = chosen * (weights.std() / max(float(chosen.std()), np.finfo(np.float32).tiny))
    log.info(
        "%d of %d tokens start from %s; %d of its tokens are not in the vocabulary",
        *(len(pairs), len(names), where, len(row_of) - len(pairs)),
    )
    return started
