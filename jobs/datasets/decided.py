"""The decided sides of a dataset's documents, as a name for what is made of them."""

from __future__ import annotations

import hashlib
from functools import partial

from jobs.datasets.shards import TokenShard
from jobs.datasets.sides import LEFT_OUT, UNDECIDED, Decisions
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.lake.manifest import FileEntry


def name_sides(tokens: TokensDataset, decisions: Decisions, engine: Engine) -> tuple[str, int]:
    """Return one hash of the side of each document, in order, and how many documents are left out.

    Raises:
        InputError: if a document is not decided.
    """
    look_up = partial(hash_sides, tokens_uri=tokens.uri, decisions=decisions)
    found = engine.map(look_up, tokens.shards, "look up the sides of documents")
    return hashlib.sha256("".join(each for each, _ in found).encode()).hexdigest(), sum(count for _, count in found)


def hash_sides(entry: FileEntry, *, tokens_uri: str, decisions: Decisions) -> tuple[str, int]:
    """Return one hash of the side of each document of a shard, in order, and how many documents are left out."""
    sides = decisions.sides_of(TokenShard.open(tokens_uri, entry).hash)
    if (sides == UNDECIDED).any():
        raise InputError(f"{tokens_uri}: has documents without a side; run the windows step first")
    return hashlib.sha256(sides.tobytes()).hexdigest(), int((sides == LEFT_OUT).sum())
