"""An optional step: from tokens to a vector for each. Publishes ``<lake>/datasets/embeddings/<fingerprint>/``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from jobs.config import Config, EmbedConfig
from jobs.datasets.dataset import existing_stats, publish_dataset, read_tokenizer, used_datasets
from jobs.embeddings.files import Embeddings, token_names, write_embeddings
from jobs.embeddings.pairs import Vocabulary
from jobs.embeddings.train import Corpus, average, count_tokens, plan_rounds, train_part
from jobs.embeddings.word2vec import Weights
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.fingerprint import code_version, fingerprint
from jobs.lake.layout import Lake, Run
from jobs.lake.store import FileEntry, Manifest, read_manifest, write_json

log = logging.getLogger(__name__)

_MAX_COUNT_BYTES = 64 * 2**20


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make the embeddings of a run's tokens, or find them made; return their statistics.

    Raises:
        InputError: if there are no tokens yet, or too few occur often enough; no dataset exists then.
    """
    lake = Lake(run.lake_uri)
    datasets = used_datasets(run)
    tokens = read_manifest(lake.tokens(datasets["tokens"])) if "tokens" in datasets else None
    if tokens is None:
        raise InputError(f"{run.uri}: this run has no tokens yet; run its tokenize step first")
    name = fingerprint(
        kind="embeddings", tokens=tokens.fingerprint, settings=config.embed.model_dump(), code=code_version(__name__)
    )
    folder_uri = lake.embeddings(name)
    found = existing_stats(folder_uri)
    stats = {**found, "reused": True} if found else _make(folder_uri, lake, tokens, config.embed, engine, progress)
    progress(f"embeddings: {stats['num_vectors']:,} vectors of {stats['size']} numbers in {folder_uri}")
    write_json(run.datasets, {**datasets, "embeddings": name})
    return stats


def _make(
    folder_uri: str,
    lake: Lake,
    tokens: Manifest,
    settings: EmbedConfig,
    engine: Engine,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    started = time.perf_counter()
    tokenizer = read_tokenizer(lake, tokens.fingerprint)
    entries = tokens.entries("shards/")
    tokens_uri = lake.tokens(tokens.fingerprint)
    vocabulary = _vocabulary(tokens_uri, entries, tokens, tokenizer.end_of_text, settings, engine)
    corpus = Corpus(tokens_uri, tokenizer.end_of_text, vocabulary)
    vectors, loss = _train(corpus, entries, settings, engine, progress)
    seconds = time.perf_counter() - started
    names = token_names(tokenizer.json)
    embeddings = Embeddings([names[i] for i in vocabulary.ids], vocabulary.ids, vectors.centers)
    files = write_embeddings(folder_uri, embeddings, vocabulary.counts)
    stats = {
        "num_vectors": len(vocabulary),
        "size": settings.size,
        "num_tokens_without_vector": sum(map(bool, names)) - len(vocabulary),
        "num_tokens": tokens.counts["num_tokens"],
        "share_of_text": float(vocabulary.counts.sum() / tokens.counts["num_tokens"]),
    }
    manifest = Manifest("embeddings", folder_uri.rpartition("/")[2], tuple(files), stats, {"tokens": tokens_uri})
    publish_dataset(folder_uri, manifest, stats)
    trained = tokens.counts["num_tokens"] * settings.epochs
    return {**stats, "reused": False, "embed_loss": loss, "tokens_per_second": trained / seconds}


def _vocabulary(
    tokens_uri: str,
    entries: Sequence[FileEntry],
    tokens: Manifest,
    end_of_text: int,
    settings: EmbedConfig,
    engine: Engine,
) -> Vocabulary:
    """Count the tokens, in as many tasks as the driver can hold the counts of."""
    vocab_size = tokens.counts["vocab_size"]
    per_task = -(-len(entries) // max(1, _MAX_COUNT_BYTES // (8 * vocab_size)))
    groups = [entries[first : first + per_task] for first in range(0, len(entries), per_task)]
    count = partial(count_tokens, tokens_uri=tokens_uri, vocab_size=vocab_size)
    counts = np.sum(engine.map(count, groups, "count tokens"), axis=0)
    vocabulary = Vocabulary.of(counts, settings.min_count, end_of_text)
    if len(vocabulary) < 2:
        raise InputError(
            f"corpus too short: {len(vocabulary)} tokens occur embed.min_count={settings.min_count} times or more;"
            " give more text or a smaller embed.min_count"
        )
    return vocabulary


def _train(
    corpus: Corpus,
    entries: Sequence[FileEntry],
    settings: EmbedConfig,
    engine: Engine,
    progress: Callable[[str], None],
) -> tuple[Weights, float]:
    """All rounds; the weights, and the mean loss of the last round's pairs in nats."""
    weights = Weights.initial(len(corpus.vocabulary), settings.size, settings.seed)
    rounds = list(plan_rounds(entries, settings))
    loss = 0.0
    for number, parts in enumerate(rounds, 1):
        train = partial(train_part, corpus=corpus, settings=settings, weights=weights)
        trained = engine.map(train, parts, f"train embeddings, round {number}")
        weights = average(weights, trained)
        loss = sum(part.loss for part in trained) / max(1, sum(part.num_pairs for part in trained))
        progress(f"embeddings: round {number} of {len(rounds)}, loss {loss:.3f}")
    return weights, loss
