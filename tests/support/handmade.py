"""Datasets made by hand, in the documented format, so that training is tested without the steps before it."""

from __future__ import annotations

import io
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from jobs.config import Config, resolve
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.uri import join
from jobs.tokenizer.definition import END_OF_TEXT
from jobs.tokenizer.tokenizer import Tokenizer

FINGERPRINT = "handmade"
TINY_MODEL = {"model.num_layers": 2, "model.embedding_size": 32, "model.hidden_size": 64, "model.num_heads": 2,
              "model.num_kv_heads": 1, "windows.size": 16}  # fmt: skip
TEXT = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8") * 2


def train_tokenizer(text: str = TEXT, vocab_size: int = 300) -> Tokenizer:
    """A small byte-level BPE tokenizer."""
    tokenizer = HuggingFaceTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([text], trainer)
    return Tokenizer(tokenizer.to_str().encode())


def make_datasets(place: Lake, tokenizer: Tokenizer, text: str = TEXT, size: int = 16, shard_windows: int = 40) -> None:
    """Write a tokens dataset (the tokenizer alone) and a windows dataset of `text`, its last fifth for validation."""
    ids = tokenizer.encode(text)
    cut = len(ids) * 4 // 5
    sides = {"train": ids[:cut], "valid": ids[cut:]}
    folder = place.dataset("windows", FINGERPRINT)
    files = tuple(
        entry for side, stream in sides.items() for entry in _write_shards(folder, side, stream, size, shard_windows)
    )
    valid = sides["valid"]
    counts = {
        "size": size,
        "stride": size,
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_of_text,
        "num_train_windows": sum(file.counts["windows"] for file in files if file.name.startswith("train/")),
        "num_valid_windows": sum(file.counts["windows"] for file in files if file.name.startswith("valid/")),
        "valid_tokens": len(valid),
        "valid_bytes": len(tokenizer.decode(valid).encode()),
        "unigram_loss": -sum(n / len(valid) * math.log(n / len(valid)) for n in Counter(valid.tolist()).values()),
        "bigram_loss": 3.5,
        "unigram_accuracy": max(Counter(valid.tolist()).values()) / len(valid),
    }
    store.publish_manifest(folder, Manifest("windows", FINGERPRINT, files, counts))
    entry = store.write_file(place.dataset("tokens", FINGERPRINT), "tokenizer.json", tokenizer.json)
    store.publish_manifest(
        place.dataset("tokens", FINGERPRINT), Manifest("tokens", FINGERPRINT, (entry,), inputs={"files": []})
    )


def make_run(place: Lake, name: str = "r", **settings: object) -> tuple[Run, Config]:
    """A run over the handmade datasets; settings are written with ``__`` for the dot."""
    # AdamW, since rounding disturbs it less than Muon: losses of different numbers of workers are compared. Few words,
    # since the texts of the model's card took a fifth of the time.
    overrides = {"generate.max_new_words": 2, "train.workers": 1, "train.dtype": "float32", "train.optimizer": "adamw",
                 "train.learning_rate": 0.01, "train.schedule": "cosine", "train.min_learning_rate_ratio": 0.1,
                 "train.beta2": 0.95, **TINY_MODEL}  # fmt: skip
    config = resolve("none", "tiny", overrides | {key.replace("__", "."): value for key, value in settings.items()})
    run = place.run(name)
    store.write_bytes(run.config, config.to_json().encode())
    store.write_json(run.datasets, {"tokens": FINGERPRINT, "windows": FINGERPRINT})
    return run, config


def pay_by_the_second(run: Run, seconds_ago: float) -> None:
    """Give a run a cluster since that many seconds, which costs a dollar in each of them."""
    asked = datetime.fromtimestamp(time.time() - seconds_ago, UTC).isoformat()
    store.write_json(join(run.clusters, "0001.json"), {"number": 1, "asked": asked, "cluster_id": "j-1"})
    store.write_json(run.budget, {"hourly_usd": 3600.0, "month_spent_usd": None, "later_seconds": 1.0})


def metrics(run: Run) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl``."""
    return [json.loads(line) for line in store.read_bytes(run.metrics).splitlines()]


def _write_shards(
    folder: str, side: str, stream: npt.NDArray[np.uint32], size: int, shard_windows: int
) -> Iterator[FileEntry]:
    num_windows = (len(stream) - size - 1) // size + 1
    for first in range(0, num_windows, shard_windows):
        count = min(shard_windows, num_windows - first)
        tokens = stream[first * size : (first + count) * size + 1]
        columns = [_list_of(tokens), _list_of(np.zeros(0, np.uint32))]
        batch = pa.record_batch(columns, names=["tokens", "starts"])
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        name = f"{side}/{first:05d}.arrow"
        yield store.write_file(folder, name, sink.getvalue(), tokens=len(tokens), windows=count)


def _list_of(values: npt.NDArray[np.uint32]) -> pa.LargeListArray[Any]:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))
