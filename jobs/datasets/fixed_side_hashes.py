"""Hashes the decided sides of a dataset's documents. The hash is part of the fingerprints of later datasets."""

from __future__ import annotations

import hashlib
from functools import partial

from jobs.datasets.fixed_sides import LEFT_OUT, UNDECIDED, Decisions
from jobs.datasets.shards import TokenShard
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.lake.manifest import FileEntry


def hash_dataset_sides(tokens: TokensDataset, decisions: Decisions, engine: Engine) -> tuple[str, int]:
    """Return one hash over the sides of all documents in order, and the number of documents that are left out.

    Raises:
        InputError: if the side of a document is not decided.
    """
    look_up = partial(hash_shard_sides, tokens_uri=tokens.uri, decisions=decisions)
    found = engine.map(look_up, tokens.shards, "look up the sides of documents")
    return hashlib.sha256("".join(each for each, _ in found).encode()).hexdigest(), sum(count for _, count in found)


def hash_shard_sides(entry: FileEntry, *, tokens_uri: str, decisions: Decisions) -> tuple[str, int]:
    """Return one hash over the sides of a shard's documents in order, and the number of them that are left out."""
    sides = decisions.sides_of(TokenShard.open(tokens_uri, entry).hash)
    if (sides == UNDECIDED).any():
        raise InputError(f"{tokens_uri}: some documents are on no side of the split yet; run the windows step first")
    return hashlib.sha256(sides.tobytes()).hexdigest(), int((sides == LEFT_OUT).sum())
