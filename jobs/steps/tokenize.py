"""Step 1: from text to tokens. Reads the corpus, publishes ``<lake>/datasets/tokens/<fingerprint>/``."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from jobs.code import code_version, fingerprint
from jobs.config import Config, TokenizeConfig
from jobs.engine.contract import Engine
from jobs.errors import InputError
from jobs.lake import Manifest, delete_folder, read_bytes, write_file, write_json
from jobs.paths import Lake, Run, join, to_uri
from jobs.text.corpus import ByteRange, Source, list_sources, plan_splits
from jobs.text.duplicates import BUCKET_DOCUMENTS, Repetitions, write_hashes, write_repetitions
from jobs.text.reading import CheckedSource, check_sources
from jobs.text.sample import sample_documents
from jobs.tokens.bpe import train_bpe
from jobs.tokens.dataset import TOKENIZER, existing_stats, publish_dataset, used_datasets
from jobs.tokens.shards import Tokenized, in_place, write_token_shards
from jobs.tokens.stats import percentile
from jobs.tokens.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_UNUSUAL = (
    *("empty_documents", "empty_files", "null_records", "replaced_letters"),
    *("byte_order_marks", "crlf_line_ends", "nul_bytes"),
    *("gutenberg_documents", "normalized_documents", "too_short_documents", "too_long_documents"),
    "duplicate_documents",
)
_CODE = ("text", "tokens/bpe.py", "tokens/shards.py", "tokens/tokenizer.py", "steps/tokenize.py")


@dataclass(frozen=True)
class _Corpus:
    """The sources of a corpus, each read once from end to end."""

    sources: list[Source]
    checked: list[CheckedSource]

    def files(self) -> list[dict[str, Any]]:
        """What the manifest says of each source."""
        pairs = zip(self.sources, self.checked, strict=True)
        return [{"name": source.name, "size": source.size, "sha256": checked.sha256} for source, checked in pairs]

    def with_text(self) -> list[Source]:
        """The sources that hold more than whitespace."""
        return [source for source, checked in zip(self.sources, self.checked, strict=True) if checked.has_text]


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make the tokens dataset of a run, or find it made; return its statistics.

    Raises:
        InputError: if the corpus or the tokenizer cannot be used; no dataset exists then.
    """
    settings = config.tokenize
    given = _given_tokenizer(settings.tokenizer)
    corpus = _check_corpus(config, engine)
    progress(f"corpus: {len(corpus.sources):,} files, {sum(source.size for source in corpus.sources):,} bytes")
    name = _fingerprint(corpus, settings, given)
    folder_uri = Lake(run.lake_uri).tokens(name)
    found = existing_stats(folder_uri)
    stats = {**found, "reused": True} if found else _make(folder_uri, corpus, settings, given, engine)
    progress(
        f"tokens: {stats['num_tokens']:,} in {stats['num_documents']:,} documents, vocabulary of"
        f" {stats['vocab_size']:,}, {stats['bytes_per_token']:.2f} bytes per token{', made before' if found else ''}"
    )
    if used_datasets(run).get("tokens") != name:
        write_json(run.datasets, {"tokens": name})
    return stats


def _check_corpus(config: Config, engine: Engine) -> _Corpus:
    """List the corpus and read it once, so that nothing is written before all of it is known to be good."""
    sources = list_sources(config.corpus)
    tasks = plan_splits(sources, config.tokenize.split_bytes, whole_files=True)
    check = partial(check_sources, settings=config.tokenize)
    checked = [source for task in engine.map(check, tasks, "check the corpus") for source in task]
    if not any(source.has_text for source in checked):
        raise InputError(f"{config.corpus}: no text in its {len(sources)} files, only whitespace or nothing")
    sources = [replace(source, body=found.body) for source, found in zip(sources, checked, strict=True)]
    return _Corpus(sources, checked)


def _given_tokenizer(name: str) -> Tokenizer | None:
    """The tokenizer that the configuration names, or None if one is to be trained."""
    if name == "train":
        return None
    uri = to_uri(name)
    try:
        data = read_bytes(uri)
    except OSError as error:
        raise InputError(f"tokenize.tokenizer: {uri} cannot be read ({error.strerror or 'no such file'})") from None
    return Tokenizer.from_json(data, uri)


def _fingerprint(corpus: _Corpus, settings: TokenizeConfig, given: Tokenizer | None) -> str:
    how = settings.model_dump(exclude={"tokenizer"} if given is None else {"tokenizer", "vocab_size", "train_bytes"})
    return fingerprint(
        kind="tokens",
        files=corpus.files(),
        settings=how,
        tokenizer=hashlib.sha256(given.json).hexdigest() if given else None,
        code=code_version(*_CODE),
        gigatoken=version("gigatoken"),
    )


def _make(
    folder_uri: str, corpus: _Corpus, settings: TokenizeConfig, given: Tokenizer | None, engine: Engine
) -> dict[str, Any]:
    started = time.perf_counter()
    splits = plan_splits(corpus.sources, settings.split_bytes, whole_files=settings.documents == "file")
    tokenizer = given or _train(corpus, splits, settings, engine)
    trained = time.perf_counter()
    log.info("vocabulary of %d tokens after %.1f seconds", tokenizer.vocab_size, trained - started)
    entry = write_file(folder_uri, TOKENIZER, tokenizer.json)
    with _repetitions(folder_uri, splits, settings, engine) as repetitions:
        write = partial(
            write_token_shards,
            folder_uri=folder_uri,
            tokenizer=tokenizer,
            settings=settings,
            repetitions=repetitions,
        )
        done = engine.map(write, list(enumerate(splits)), "tokenize")
    if not any(task.shards for task in done):
        raise InputError("the filters of tokenize.* leave no document of this corpus; set them wider")
    encode_seconds = time.perf_counter() - trained
    log.info("%d splits encoded in %.1f seconds", len(splits), encode_seconds)
    shards, text_bytes = in_place([shard for task in done for shard in task.shards])
    stats = _stats(corpus, settings, tokenizer, done)
    files = [{**file, "text_bytes": text_bytes[file["name"]]} for file in corpus.files()]
    name = folder_uri.rpartition("/")[2]
    publish_dataset(folder_uri, Manifest("tokens", name, (entry, *shards), stats, {"files": files}), stats)
    return {
        **stats,
        "reused": False,
        "vocabulary_seconds": trained - started,
        "encode_seconds": encode_seconds,
        "tokens_per_second": stats["num_tokens"] / encode_seconds,
        "bytes_per_second": stats["num_bytes"] / encode_seconds,
    }


@contextmanager
def _repetitions(
    folder_uri: str, splits: Sequence[Sequence[ByteRange]], settings: TokenizeConfig, engine: Engine
) -> Iterator[Repetitions | None]:
    """Where it stands which documents are repeated, if these are to be dropped; gone when it was used."""
    if not settings.drop_duplicates:
        yield None
        return
    scratch_uri = join(folder_uri, f"scratch-{uuid.uuid4().hex[:12]}")
    try:
        write = partial(write_hashes, folder_uri=scratch_uri, settings=settings)
        counts = engine.map(write, list(enumerate(splits)), "hash the documents")
        num_buckets = sum(counts) // BUCKET_DOCUMENTS + 1
        find = partial(write_repetitions, folder_uri=scratch_uri, num_splits=len(splits), num_buckets=num_buckets)
        engine.map(find, range(num_buckets), "find duplicates")
        yield Repetitions(scratch_uri, num_buckets)
    finally:
        delete_folder(scratch_uri)


def _train(
    corpus: _Corpus, splits: Sequence[Sequence[ByteRange]], settings: TokenizeConfig, engine: Engine
) -> Tokenizer:
    share = settings.train_bytes / sum(checked.text_bytes for checked in corpus.checked)
    sample = partial(sample_documents, share=share, settings=settings)
    texts = (text for task in engine.map(sample, splits, "sample the corpus") for text in task)
    return Tokenizer.from_json(train_bpe(texts, settings.vocab_size))


def _stats(
    corpus: _Corpus, settings: TokenizeConfig, tokenizer: Tokenizer, done: Sequence[Tokenized]
) -> dict[str, Any]:
    counts, by_length = Counter[str](), Counter[int]()
    for task in done:
        counts.update(task.counts)
        by_length.update(task.documents_by_length)
        for shard in task.shards:
            counts.update(shard.entry.counts)
    for checked in corpus.checked:
        counts.update(checked.counts)
    num_documents, num_tokens = counts["documents"], counts["tokens"]
    if settings.documents != "line":
        counts["empty_documents"] += len(corpus.sources) - len(corpus.with_text())
    return {
        "num_files": len(corpus.sources),
        "num_documents": num_documents,
        **{f"num_{name}": counts[name] for name in _UNUSUAL},
        "num_bytes": counts["bytes"],
        "num_tokens": num_tokens,
        "vocab_size": tokenizer.vocab_size,
        "dtype": tokenizer.dtype.name,
        "bytes_per_token": counts["bytes"] / max(1, num_tokens - num_documents),
        "tokens_per_document_mean": num_tokens / num_documents,
        **{f"tokens_per_document_p{p}": percentile(by_length, p) for p in (5, 50, 95)},
        "tokens_per_document_max": max(by_length),
    }
