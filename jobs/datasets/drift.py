"""Measures the drift of a corpus: how new documents differ from the documents whose sides are already decided."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from jobs.datasets.baselines import Counts, entropy, unigram_loss
from jobs.datasets.fixed_sides import UNDECIDED, Decisions
from jobs.datasets.shards import TokenShard, group_shards
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.lake.manifest import FileEntry


def measure_drift(tokens: TokensDataset, decisions: Decisions, engine: Engine) -> dict[str, Any]:
    """Return the number of new tokens, and the losses of new and of old text under a unigram model of the old text.

    Old text is in documents whose sides are decided, new text in the other documents. Both losses are None if there is
    no old text or no new text.
    """
    count = partial(count_tokens, tokens_uri=tokens.uri, decisions=decisions, vocab_size=tokens.vocab_size)
    groups = group_shards(tokens.shards, 2 * 8 * tokens.vocab_size)
    old, new = np.sum(engine.map(count, groups, "compare new text with old"), axis=0)
    is_comparable = bool(old.sum() and new.sum())
    return {
        "num_new_tokens": int(new.sum()),
        "new_unigram_loss": unigram_loss(old, new) if is_comparable else None,
        "old_unigram_loss": entropy(old) if is_comparable else None,
    }


def count_tokens(entries: Sequence[FileEntry], *, tokens_uri: str, decisions: Decisions, vocab_size: int) -> Counts:
    """Return the counts of each token in some shards, (2, vocab): row 0 for decided documents, row 1 for the others."""
    counts = np.zeros((2, vocab_size), np.int64)
    for shard in (TokenShard.open(tokens_uri, entry) for entry in entries):
        is_new = np.repeat(decisions.sides_of(shard.hash) == UNDECIDED, shard.lengths)
        counts += [np.bincount(shard.ids[mask], minlength=vocab_size) for mask in (~is_new, is_new)]
    return counts
