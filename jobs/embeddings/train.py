"""Trains embeddings in rounds, on several workers.

In a round, all workers start from the same weights, and each trains on its own part of the corpus. Then the workers'
weights are averaged. The parts do not depend on the number of executors, so the result does not, either.

In the average, each worker's vector of a token is weighted by how often this worker trained the token. A plain average
would halve the change of a token that only one of two workers trained. The weights are sent to the executors with the
tasks, and the driver holds the weights of all workers of a round in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from jobs.config import EmbedConfig
from jobs.datasets.fixed_sides import TRAIN, Decisions
from jobs.datasets.publish import MadeDataset
from jobs.datasets.shards import ShardSlice, TokenShard, group_shards, slice_shards
from jobs.datasets.tokens import TokensDataset
from jobs.embeddings.files import Embeddings, token_names, write_embeddings
from jobs.embeddings.word2vec import SkipGram, TokenRows, Vectors, Vocabulary, Weights, skip_gram_pairs
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.lake.manifest import FileEntry
from jobs.metrics.stats import EmbedStats
from jobs.tokenizer.tokenizer import TokenIds

_CHUNK_TOKENS = 1 << 17
_LAST_RATE_RATIO = 0.1


@dataclass(frozen=True)
class TrainingText:
    """The tokens to train on, and the vocabulary."""

    tokens_uri: str
    end_of_text: int
    vocabulary: Vocabulary
    decided: Decisions | None = None
    """The decided sides of the documents. Only training documents are trained on. If None, train on all documents."""


@dataclass(frozen=True)
class WorkerPart:
    """The work of one worker in a round: slices of token shards, a seed, and the first and last learning rate."""

    slices: list[ShardSlice]
    key: tuple[int, ...]
    first_rate: float
    last_rate: float


@dataclass(frozen=True)
class WorkerResult:
    """A worker's weights after training on its part, and how often it trained each token as center and as context."""

    weights: Weights
    center_counts: npt.NDArray[np.float64]
    context_counts: npt.NDArray[np.float64]
    loss: float
    """The sum of the losses of all pairs of tokens, in nats."""
    num_pairs: int


def make_embeddings(
    folder_uri: str,
    tokens: TokensDataset,
    settings: EmbedConfig,
    engine: Engine,
    progress: Callable[[str], None],
    decided: Decisions | None = None,
) -> MadeDataset:
    """Train embeddings on a dataset of tokens, and write them below `folder_uri`.

    `decided` holds the sides of the documents in a fixed split. If it is given, only documents on the training side are
    trained on, so that validation documents stay held out.
    """
    started = time.perf_counter()
    tokenizer = tokens.read_tokenizer()
    vocabulary = _count_vocabulary(tokens, tokenizer.end_of_text, settings, engine, decided)
    text = TrainingText(tokens.uri, tokenizer.end_of_text, vocabulary, decided)
    weights, loss = _train_rounds(text, tokens.shards, settings, engine, progress)
    seconds = time.perf_counter() - started
    names = token_names(tokenizer.json)
    embeddings = Embeddings([names[i] for i in vocabulary.ids], vocabulary.ids, weights.centers)
    files = write_embeddings(folder_uri, embeddings, vocabulary.counts)
    num_tokens = tokens.counts["num_tokens"]
    stats: EmbedStats = {
        "num_vectors": len(vocabulary),
        "size": settings.size,
        "num_tokens_without_vector": sum(map(bool, names)) - len(vocabulary),
        "num_tokens": num_tokens,
        "share_of_text": float(vocabulary.counts.sum() / num_tokens),
    }
    measured: EmbedStats = {"embed_loss": loss, "tokens_per_second": num_tokens * settings.epochs / seconds}
    return MadeDataset(files, stats, {"tokens": tokens.uri}, measured)


def _count_vocabulary(
    tokens: TokensDataset, end_of_text: int, settings: EmbedConfig, engine: Engine, decided: Decisions | None
) -> Vocabulary:
    count = partial(count_tokens, tokens_uri=tokens.uri, vocab_size=tokens.vocab_size, decided=decided)
    groups = group_shards(tokens.shards, 8 * tokens.vocab_size)
    counts = np.sum(engine.map(count, groups, "count tokens"), axis=0)
    vocabulary = Vocabulary.of(counts, settings.min_count, end_of_text)
    if len(vocabulary) < 2:
        raise InputError(
            f"corpus too short: {len(vocabulary)} different tokens occur at least embed.min_count={settings.min_count}"
            " times, but at least 2 are needed; give more text or set a smaller embed.min_count"
        )
    return vocabulary


def _train_rounds(
    text: TrainingText,
    entries: Sequence[FileEntry],
    settings: EmbedConfig,
    engine: Engine,
    progress: Callable[[str], None],
) -> tuple[Weights, float]:
    """Train all rounds. Return the weights, and the mean loss of the pairs of tokens in the last round, in nats."""
    weights = Weights.initial(len(text.vocabulary), settings.size, settings.seed)
    rounds = list(plan_rounds(entries, settings))
    loss = 0.0
    for number, parts in enumerate(rounds, 1):
        train = partial(train_part, text=text, settings=settings, weights=weights)
        results = engine.map(train, parts, f"train embeddings, round {number}")
        weights = average(weights, results)
        loss = sum(result.loss for result in results) / max(1, sum(result.num_pairs for result in results))
        progress(f"embeddings: round {number} of {len(rounds)}, loss {loss:.3f}")
    return weights, loss


def count_tokens(
    entries: Sequence[FileEntry], *, tokens_uri: str, vocab_size: int, decided: Decisions | None
) -> npt.NDArray[np.int64]:
    """Count how often each token id occurs in the shards `entries`, as `read_ids` reads them."""
    counts = np.zeros(vocab_size, np.int64)
    for entry in entries:
        counts += np.bincount(read_ids(tokens_uri, entry, decided), minlength=vocab_size)
    return counts


def read_ids(tokens_uri: str, entry: FileEntry, decided: Decisions | None) -> TokenIds:
    """Return the token ids of a shard.

    If `decided` is given, each token of a document that is not on the training side is replaced by end-of-text.
    """
    shard = TokenShard.open(tokens_uri, entry)
    if decided is None:
        return shard.ids
    is_trained = np.repeat(decided.sides_of(shard.hash) == TRAIN, shard.lengths)
    ids: TokenIds = np.where(is_trained, shard.ids, shard.ids[-1])
    return ids


def plan_rounds(entries: Sequence[FileEntry], settings: EmbedConfig) -> Iterator[list[WorkerPart]]:
    """Divide the tokens into parts of equal length, and yield for each round the parts of its workers.

    Each epoch trains on every part once, in a random order that differs between epochs.
    """
    ends = list(accumulate(entry.counts["tokens"] for entry in entries))
    per_epoch = max(1, round(ends[-1] / (settings.workers * settings.sync_tokens)))
    num_parts = per_epoch * settings.workers
    borders = [part * ends[-1] // num_parts for part in range(num_parts + 1)]
    parts = [slice_shards(entries, ends, begin, end) for begin, end in pairwise(borders)]
    decay = np.linspace(1.0, _LAST_RATE_RATIO, settings.epochs * per_epoch + 1) * settings.learning_rate
    rates = pairwise(decay.tolist())
    for epoch in range(settings.epochs):
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(parts)).tolist()
        for first in range(0, len(parts), settings.workers):
            chosen = order[first : first + settings.workers]
            first_rate, last_rate = next(rates)
            yield [WorkerPart(parts[i], (settings.seed, epoch, i), first_rate, last_rate) for i in chosen]


def train_part(part: WorkerPart, *, text: TrainingText, settings: EmbedConfig, weights: Weights) -> WorkerResult:
    """Train a copy of `weights` on one worker's part."""
    rng = np.random.default_rng(part.key)
    vocabulary, noise = text.vocabulary, text.vocabulary.noise()
    model = SkipGram(weights, noise, settings.negative, rng)
    rows, documents = _subsample(part, text, settings.subsample, rng)
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
    return WorkerResult(model.weights, center_counts, context_counts, loss, num_pairs)


def average(before: Weights, results: Sequence[WorkerResult]) -> Weights:
    """Return the weights after a round: `before`, plus the weighted mean of the workers' changes to each vector.

    The weight of a worker's change to a vector is how often this worker trained the vector's token.
    """
    return Weights(
        _average(before.centers, [(each.weights.centers, each.center_counts) for each in results]),
        _average(before.contexts, [(each.weights.contexts, each.context_counts) for each in results]),
    )


def _average(before: Vectors, trained: Sequence[tuple[Vectors, npt.NDArray[np.float64]]]) -> Vectors:
    total = np.maximum(sum(counts for _, counts in trained), np.finfo(np.float64).tiny)
    after = before.copy()
    for vectors, counts in trained:
        after += (vectors - before) * (counts / total).astype(np.float32)[:, None]
    return after


def _subsample(
    part: WorkerPart, text: TrainingText, subsample: float, rng: np.random.Generator
) -> tuple[TokenRows, TokenRows]:
    """Read a part and drop rare tokens and, at random, frequent tokens.

    Return for each token that is left its row in the vocabulary, and the number of its document in the part.
    """
    read = [read_ids(text.tokens_uri, each.entry, text.decided)[each.begin : each.end] for each in part.slices]
    ids = np.concatenate([np.zeros(0, np.uint16), *read])
    documents = np.cumsum(ids == text.end_of_text)
    rows = text.vocabulary.rows(ids)
    kept = rows >= 0
    kept[kept] = rng.random(kept.sum()) < text.vocabulary.keep_probability(subsample)[rows[kept]]
    return rows[kept], documents[kept]
