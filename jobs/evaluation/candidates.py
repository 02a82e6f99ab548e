"""Chooses validation documents for the evaluation set: a random sample that depends only on the texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from jobs.corpus.near_keys import NUM_KEYS, Keys
from jobs.datasets.fixed_sides import VALID, Decisions
from jobs.datasets.fixed_split import draw_of
from jobs.datasets.shards import TokenShard
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.lake.manifest import FileEntry

_NUM_EDGES = 1 << 12
_SPARE = 4  # this many times the wanted documents are examined, since some are near duplicates


@dataclass(frozen=True, order=True)
class Candidate:
    """A chosen document: its source and offset in the corpus, and the hash of its text."""

    source: str
    offset: int
    hash: int


def find_candidates(
    tokens: TokensDataset, decisions: Decisions, known: Keys, room: int, engine: Engine
) -> list[Candidate]:
    """Return at most `room` validation documents for the evaluation set.

    None of them is nearly equal to another one or to a document in the set. Nearly equal documents have a MinHash key
    in common. `known` holds the keys of the documents in the set.
    """
    count = partial(count_draws, tokens_uri=tokens.uri, decisions=decisions)
    counts = np.sum(engine.map(count, tokens.shards, "count validation documents"), axis=0)
    first = int(np.searchsorted(np.cumsum(counts), _SPARE * room + len(known) // NUM_KEYS))
    below = min(1.0, (first + 1) / _NUM_EDGES)
    find = partial(find_below, tokens_uri=tokens.uri, decisions=decisions, below=below)
    found = engine.map(find, tokens.shards, "choose validation documents")
    seen = set(known.tolist())
    chosen: list[Candidate] = []
    for _, candidate, keys in sorted((each for part in found for each in part), key=lambda each: each[:2]):
        if seen.isdisjoint(keys) and len(chosen) < room:
            chosen.append(candidate)
            seen.update(keys)
    return chosen


def count_draws(entry: FileEntry, *, tokens_uri: str, decisions: Decisions) -> npt.NDArray[np.int64]:
    """Return a histogram of the draws of a shard's validation documents, with bins of equal width."""
    _, _, draws = _valid_documents(entry, tokens_uri, decisions)
    return np.bincount((draws * _NUM_EDGES).astype(np.int64), minlength=_NUM_EDGES)


def find_below(
    entry: FileEntry, *, tokens_uri: str, decisions: Decisions, below: float
) -> list[tuple[float, Candidate, list[int]]]:
    """Return the validation documents of a shard with a draw below `below`, each with its draw and its MinHash keys."""
    shard, rows, draws = _valid_documents(entry, tokens_uri, decisions)
    kept = rows[draws < below]
    assert shard.near_keys is not None, "the tokenize step stores keys for this split"
    names = [name for name, _ in shard.sources]
    return [
        (float(draw), Candidate(names[shard.source[row]], int(shard.offset[row]), int(shard.hash[row])), keys)
        for draw, row, keys in zip(draws[draws < below], kept.tolist(), shard.near_keys[kept].tolist(), strict=True)
    ]


def _valid_documents(
    entry: FileEntry, tokens_uri: str, decisions: Decisions
) -> tuple[TokenShard, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return a shard, the rows of its validation documents, and a draw for each: not the draw that decided its side."""
    shard = TokenShard.open(tokens_uri, entry)
    rows = np.flatnonzero(decisions.sides_of(shard.hash) == VALID)
    return shard, rows, draw_of(shard.hash[rows], "frozen")
