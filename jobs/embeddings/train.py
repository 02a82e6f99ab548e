"""Training by several workers in rounds: each trains on its part from the same weights, then these are averaged.

Which worker trains on what is a function of the settings alone, so the number of executors, or having none, does not
matter. A vector's average is weighted by how often each worker saw its token: plain averaging would halve what is
learned about a token that only one of two workers met. Weights travel with the tasks; the driver holds those of all
workers of a round.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from jobs.config import EmbedConfig
from jobs.datasets.shards import TokenShard
from jobs.embeddings.pairs import Rows, Vocabulary, skip_gram_pairs
from jobs.embeddings.word2vec import Matrix, SkipGram, Weights
from jobs.lake.store import FileEntry

_CHUNK_TOKENS = 1 << 17
_LAST_RATE_RATIO = 0.1


@dataclass(frozen=True)
class Corpus:
    """The tokens that are learned from."""

    tokens_uri: str
    end_of_text: int
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Piece:
    """The tokens [begin, end) of a shard."""

    entry: FileEntry
    begin: int
    end: int


@dataclass(frozen=True)
class Part:
    """What a worker trains on in a round, with the key of its random draws and its learning rates."""

    pieces: list[Piece]
    key: tuple[int, ...]
    first_rate: float
    last_rate: float


@dataclass(frozen=True)
class Trained:
    """What a worker made of its part: new weights, and how often each token was learned from."""

    weights: Weights
    center_counts: npt.NDArray[np.float64]
    context_counts: npt.NDArray[np.float64]
    loss: float
    """Sum over the pairs, in nats."""
    num_pairs: int


def count_tokens(entries: Sequence[FileEntry], *, tokens_uri: str, vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each token id occurs in some shards.

    Raises:
        DamagedError: if a shard is missing, truncated or altered.
    """
    counts = np.zeros(vocab_size, np.int64)
    for entry in entries:
        counts += np.bincount(TokenShard.open(tokens_uri, entry).ids, minlength=vocab_size)
    return counts


def plan_rounds(entries: Sequence[FileEntry], settings: EmbedConfig) -> Iterator[list[Part]]:
    """The parts of each round. In each epoch all parts come once, in an order of its own."""
    num_tokens = sum(entry.counts["tokens"] for entry in entries)
    per_epoch = max(1, round(num_tokens / (settings.workers * settings.sync_tokens)))
    pieces = list(_cut(entries, num_tokens, per_epoch * settings.workers))
    decay = np.linspace(1.0, _LAST_RATE_RATIO, settings.epochs * per_epoch + 1) * settings.learning_rate
    rates = pairwise(decay.tolist())
    for epoch in range(settings.epochs):
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(pieces)).tolist()
        for first in range(0, len(pieces), settings.workers):
            chosen = order[first : first + settings.workers]
            first_rate, last_rate = next(rates)
            yield [Part(pieces[i], (settings.seed, epoch, i), first_rate, last_rate) for i in chosen]


def train_part(part: Part, *, corpus: Corpus, settings: EmbedConfig, weights: Weights) -> Trained:
    """Train `weights` on one part.

    Raises:
        DamagedError: if a shard is missing, truncated or altered.
    """
    rng = np.random.default_rng(part.key)
    vocabulary, noise = corpus.vocabulary, corpus.vocabulary.noise()
    model = SkipGram(weights, noise, settings.negative, rng)
    rows, documents = _thinned(part, corpus, settings.subsample, rng)
    starts = range(0, len(rows), _CHUNK_TOKENS)
    rates = np.linspace(part.first_rate, part.last_rate, len(starts) + 1).tolist()
    center_counts, context_counts = np.zeros((2, len(vocabulary)))
    loss, num_pairs = 0.0, 0
    for start, chunk_rates in zip(starts, pairwise(rates), strict=True):
        chunk = slice(start, start + _CHUNK_TOKENS)
        centers, contexts = skip_gram_pairs(rows[chunk], documents[chunk], settings.window, rng)
        loss += model.train(centers, contexts, *chunk_rates)
        num_pairs += len(centers)
        center_counts += np.bincount(centers, minlength=len(vocabulary))
        context_counts += np.bincount(contexts, minlength=len(vocabulary))
    context_counts += noise * settings.negative * num_pairs
    return Trained(model.weights, center_counts, context_counts, loss, num_pairs)


def average(before: Weights, trained: Sequence[Trained]) -> Weights:
    """The weights after a round: each vector's changes, weighted by how often each worker saw the token."""
    return Weights(
        _average(before.centers, [(worker.weights.centers, worker.center_counts) for worker in trained]),
        _average(before.contexts, [(worker.weights.contexts, worker.context_counts) for worker in trained]),
    )


def _average(before: Matrix, trained: Sequence[tuple[Matrix, npt.NDArray[np.float64]]]) -> Matrix:
    total = np.maximum(sum(counts for _, counts in trained), np.finfo(np.float64).tiny)
    after = before.copy()
    for matrix, counts in trained:
        after += (matrix - before) * (counts / total).astype(np.float32)[:, None]
    return after


def _cut(entries: Sequence[FileEntry], num_tokens: int, num_parts: int) -> Iterator[list[Piece]]:
    """The stream of all shards in parts of equal length."""
    ends = list(accumulate(entry.counts["tokens"] for entry in entries))
    borders = [part * num_tokens // num_parts for part in range(num_parts + 1)]
    for begin, end in pairwise(borders):
        pieces = []
        for i in range(bisect_right(ends, begin), len(ends)):
            first = ends[i] - entries[i].counts["tokens"]
            if first >= end:
                break
            pieces.append(Piece(entries[i], max(begin - first, 0), min(end, ends[i]) - first))
        yield pieces


def _thinned(part: Part, corpus: Corpus, subsample: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """The tokens of a part that are learned from, as rows, and the number of the document of each."""
    read = [TokenShard.open(corpus.tokens_uri, piece.entry).ids[piece.begin : piece.end] for piece in part.pieces]
    ids = np.concatenate([np.zeros(0, np.uint16), *read])
    documents = np.cumsum(ids == corpus.end_of_text)
    rows = corpus.vocabulary.rows(ids)
    kept = rows >= 0
    kept[kept] = rng.random(kept.sum()) < corpus.vocabulary.keep_probability(subsample)[rows[kept]]
    return rows[kept], documents[kept]
