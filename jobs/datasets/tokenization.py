"""Makes a dataset of tokens: trains a tokenizer if none is given, and encodes the corpus."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange, divide_sources
from jobs.corpus.check import CheckedSource
from jobs.corpus.duplicates import find_duplicates
from jobs.corpus.reading import NO_DOCUMENT
from jobs.datasets.encoding import EncodedSplit, SplitTask, write_token_shards
from jobs.datasets.publish import MadeDataset
from jobs.datasets.reuse import ReusableShards
from jobs.datasets.shards import locate_sources
from jobs.engine.base import Engine
from jobs.errors import InputError, counted
from jobs.fingerprint import fingerprint
from jobs.lake.models import TOKENIZER
from jobs.lake.store import write_file
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import train_tokenizer

log = logging.getLogger(__name__)

_UNUSUAL = (
    *("empty_documents", "empty_files", "null_records", "replaced_letters"),
    *("byte_order_marks", "crlf_line_ends", "cr_line_ends", "nul_bytes", "ignored_bytes", "markup_files"),
    "dictionary_files",
    *(
        "divided_documents",
        "gutenberg_documents",
        "unmarked_texts",
        "normalized_documents",
        "too_short_documents",
        "too_long_documents",
    ),
    *("duplicate_documents", "near_duplicate_documents", "forgotten_documents"),
)
_VOCABULARY_SETTINGS = {"kind", "lowercase", "min_frequency", "vocab_size", "train_bytes"}


def describe_inputs(
    corpus: Sequence[CheckedSource], settings: TokenizeConfig, tokenizer: Tokenizer | None, code: str
) -> dict[str, Any]:
    """Return a description of what a tokens dataset is made of.

    The manifest records this description, and the dataset's fingerprint is a hash of it. `tokenizer` is None if a
    tokenizer will be trained. `code` is the hash of the code.
    """
    forgotten = corpus[0].source.forgotten
    return {
        "files": [source.describe() for source in corpus],
        "how": fingerprint(
            settings=settings.model_dump(exclude={"tokenizer", *_VOCABULARY_SETTINGS}),
            code=code,
            gigatoken=version("gigatoken"),
            tokenizers=version("tokenizers"),
            **({"forgotten": forgotten} if forgotten else {}),
        ),
        "tokenizer": _sha256(tokenizer) if tokenizer else settings.model_dump(include=_VOCABULARY_SETTINGS),
    }


def make_tokens(
    folder_uri: str,
    corpus: Sequence[CheckedSource],
    inputs: dict[str, Any],
    given: Tokenizer | None,
    reusable: ReusableShards,
    settings: TokenizeConfig,
    engine: Engine,
) -> MadeDataset:
    """Encode a corpus into shards below `folder_uri`. Train a tokenizer if none is given.

    `inputs` is the result of `describe_inputs`.
    """
    started = time.perf_counter()
    splits = divide_sources(
        [checked.source for checked in corpus], settings.split_bytes, whole_files=settings.documents == "file"
    )
    text_bytes = sum(checked.text_bytes for checked in corpus)
    tokenizer = given or train_tokenizer(splits, text_bytes, settings, engine)
    trained = time.perf_counter()
    log.info("vocabulary of %d tokens after %.1f seconds", tokenizer.vocab_size, trained - started)
    encoded = _encode(folder_uri, splits, tokenizer, reusable, settings, engine)
    entry = write_file(folder_uri, TOKENIZER, tokenizer.json)
    encode_seconds = time.perf_counter() - trained
    log.info("%s encoded in %.1f seconds", counted(len(splits), "input split"), encode_seconds)
    shards, source_bytes = locate_sources([shard for split in encoded for shard in split.shards])
    files = _describe_files(corpus, encoded, source_bytes, reusable)
    stats = _statistics(corpus, settings, tokenizer, encoded, files)
    return MadeDataset(
        (entry, *shards),
        stats,
        {**inputs, "files": files, "used": _sha256(tokenizer), "reused_sources": sorted(reusable.files)},
        {
            "vocabulary_seconds": trained - started,
            "encode_seconds": encode_seconds,
            "tokens_per_second": stats["num_tokens"] / encode_seconds,
            "bytes_per_second": stats["num_bytes"] / encode_seconds,
        },
    )


def _encode(
    folder_uri: str,
    splits: Sequence[Sequence[ByteRange]],
    tokenizer: Tokenizer,
    reusable: ReusableShards,
    settings: TokenizeConfig,
    engine: Engine,
) -> list[EncodedSplit]:
    tasks = [SplitTask(number, parts, reusable.of_parts(parts)) for number, parts in enumerate(splits)]
    with find_duplicates(folder_uri, splits, settings, engine) as duplicates:
        write = partial(
            write_token_shards,
            folder_uri=folder_uri,
            tokenizer=tokenizer,
            settings=settings,
            reused_uri=reusable.folder_uri,
            duplicates=duplicates,
        )
        encoded = engine.map(write, tasks, "tokenize")
    if not any(split.shards for split in encoded):
        raise InputError(NO_DOCUMENT)
    return encoded


def _describe_files(
    corpus: Sequence[CheckedSource],
    encoded: Sequence[EncodedSplit],
    source_bytes: Counter[str],
    reusable: ReusableShards,
) -> list[dict[str, Any]]:
    """Return the manifest's entry of each file of the corpus, with its bytes of text and counts of irregularities."""
    found: dict[str, Counter[str]] = {}
    for split in encoded:
        for name, counts in split.counts.items():
            found.setdefault(name, Counter()).update(counts)
    files = []
    for checked in corpus:
        name = checked.source.name
        before = reusable.files.get(name)
        unusual = before["counts"] if before else dict(checked.counts + found.get(name, Counter()))
        files.append({**checked.describe(), "text_bytes": source_bytes[name], "counts": unusual})
    return files


def _statistics(
    corpus: Sequence[CheckedSource],
    settings: TokenizeConfig,
    tokenizer: Tokenizer,
    encoded: Sequence[EncodedSplit],
    files: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    counts, by_length = Counter[str](), Counter[int]()
    for split in encoded:
        by_length.update(split.documents_by_length)
        for shard in split.shards:
            counts.update(shard.entry.counts)
    for file in files:
        counts.update(file["counts"])
    num_documents, num_tokens = counts["documents"], counts["tokens"]
    if settings.documents != "line":
        counts["empty_documents"] += sum(not checked.has_text for checked in corpus)
    return {
        "num_files": len(corpus),
        "num_documents": num_documents,
        **{f"num_{name}": counts[name] for name in _UNUSUAL},
        "num_bytes": counts["bytes"],
        "num_tokens": num_tokens,
        "vocab_size": tokenizer.vocab_size,
        "dtype": tokenizer.dtype.name,
        "bytes_per_token": counts["bytes"] / max(1, num_tokens - num_documents),
        "tokens_per_document_mean": num_tokens / num_documents,
        **{f"tokens_per_document_p{percent}": _percentile(by_length, percent) for percent in (5, 50, 95)},
        "tokens_per_document_max": max(by_length),
        "tokens_per_document_histogram": _histogram(by_length),
    }


def _histogram(counts: Counter[int]) -> list[list[int]]:
    """Return a histogram of values, as pairs: the largest value of a bin, which is a power of two, and the bin's count.

    `counts` holds the number of occurrences of each value.
    """
    classes = Counter[int]()
    for value, count in counts.items():
        classes[1 << (value - 1).bit_length()] += count
    return [[upper, classes[upper]] for upper in sorted(classes)]


def _percentile(counts: Counter[int], percent: float) -> int:
    """Return the nearest-rank percentile of values; `counts` holds the number of occurrences of each value."""
    values = sorted(counts)
    up_to = np.cumsum([counts[value] for value in values])
    return values[int(np.searchsorted(up_to, up_to[-1] * percent / 100))]


def _sha256(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.json).hexdigest()
