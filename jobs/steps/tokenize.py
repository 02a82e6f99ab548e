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

from jobs.config import Config, TokenizeConfig
from jobs.corpus.dedup.duplicates import BUCKET_KEYS, Repetitions, keys_of_each, write_keys, write_repetitions
from jobs.corpus.reading import CheckedSource, check_sources
from jobs.corpus.sample import sample_documents
from jobs.corpus.splits import ByteRange, plan_splits
from jobs.datasets.baselines import percentile
from jobs.datasets.dataset import TOKENIZER, existing_stats, publish_dataset, read_tokenizer, used_datasets
from jobs.datasets.encoding import SplitItem, Tokenized, write_token_shards
from jobs.datasets.reuse import Inherited, Kept, champion_tokenizer, latest_tokens
from jobs.datasets.shards import in_place
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.fingerprint import code_version, fingerprint
from jobs.lake.layout import Lake, Run
from jobs.lake.store import Manifest, delete_folder, read_bytes, write_file, write_json
from jobs.lake.uri import join, to_uri
from jobs.sources.listing import Source, list_sources
from jobs.tokenizer.bpe import train_bpe
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.vocabulary import count_units, vocabulary_json

log = logging.getLogger(__name__)

_UNUSUAL = (
    *("empty_documents", "empty_files", "null_records", "replaced_letters"),
    *("byte_order_marks", "crlf_line_ends", "nul_bytes"),
    *("gutenberg_documents", "normalized_documents", "too_short_documents", "too_long_documents"),
    *("duplicate_documents", "near_duplicate_documents"),
)
_OF_VOCABULARY = {"kind", "lowercase", "min_frequency", "vocab_size", "train_bytes"}


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
    settings, home = config.tokenize, Lake(run.lake_uri)
    before = latest_tokens(home, config.corpus, run.run_id) if settings.tokenizer != "train" else None
    given = _given_tokenizer(settings.tokenizer, home, before)
    corpus = _check_corpus(config, engine)
    progress(f"corpus: {len(corpus.sources):,} files, {sum(source.size for source in corpus.sources):,} bytes")
    inputs = _inputs(corpus, settings, given.tokenizer if given else None)
    kept = _kept(home, before[1] if before else None, inputs, settings)
    name = kept.complete or fingerprint(kind="tokens", **inputs)
    found = existing_stats(home.tokens(name))
    making = _Making(home.tokens(name), corpus, settings, engine, kept)
    stats = {**found, "reused": True} if found else making.make(given.tokenizer if given else None, inputs)
    num_kept = len(corpus.sources) if found else len(kept.files)
    progress(
        f"tokens: {stats['num_tokens']:,} in {stats['num_documents']:,} documents, vocabulary of"
        f" {stats['vocab_size']:,}, {stats['bytes_per_token']:.2f} bytes per token{', made before' if found else ''};"
        f" {num_kept:,} files made before, {len(corpus.sources) - num_kept:,} new"
    )
    if used_datasets(run).get("tokens") != name:
        write_json(run.datasets, {"tokens": name})
    return {
        **stats,
        "tokenizer_from": given.origin if given else "trained",
        "reused_sources": num_kept,
        "new_sources": len(corpus.sources) - num_kept,
    }


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


def _given_tokenizer(name: str, home: Lake, before: tuple[str, Manifest] | None) -> Inherited | None:
    """The tokenizer that the configuration names, or None if one is to be trained."""
    if name == "train":
        return None
    if name == "inherit":
        champion = champion_tokenizer(home)
        if champion or before is None:
            return champion
        return Inherited(read_tokenizer(home, before[1].fingerprint), f"run {before[0]}")
    uri = to_uri(name)
    try:
        data = read_bytes(uri)
    except OSError as error:
        raise InputError(f"tokenize.tokenizer: {uri} cannot be read ({error.strerror or 'no such file'})") from None
    return Inherited(Tokenizer.from_json(data, uri), uri)


def _inputs(corpus: _Corpus, settings: TokenizeConfig, given: Tokenizer | None) -> dict[str, Any]:
    """What makes the dataset: it names it, and stands in the manifest."""
    trained = settings.model_dump(include=_OF_VOCABULARY)
    return {
        "files": corpus.files(),
        "how": fingerprint(
            settings=settings.model_dump(exclude={"tokenizer", *_OF_VOCABULARY}),
            code=code_version(__name__),
            gigatoken=version("gigatoken"),
            tokenizers=version("tokenizers"),
        ),
        "tokenizer": _sha256(given) if given else trained,
    }


def _kept(home: Lake, before: Manifest | None, inputs: dict[str, Any], settings: TokenizeConfig) -> Kept:
    """What of an earlier dataset can be taken over."""
    if before is None or before.inputs["how"] != inputs["how"] or before.inputs["used"] != inputs["tokenizer"]:
        return Kept()
    return Kept.of_dataset(home.tokens(before.fingerprint), before, inputs["files"], settings)


def _sha256(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.json).hexdigest()


@dataclass(frozen=True)
class _Making:
    """A dataset that is to be made: where, of what, how, by whom, and what of it an earlier one has."""

    folder_uri: str
    corpus: _Corpus
    settings: TokenizeConfig
    engine: Engine
    kept: Kept

    def make(self, given: Tokenizer | None, inputs: dict[str, Any]) -> dict[str, Any]:
        """Make it with a `given` tokenizer or a new one; return its statistics."""
        started = time.perf_counter()
        whole_files = self.settings.documents == "file"
        splits = plan_splits(self.corpus.sources, self.settings.split_bytes, whole_files)
        tokenizer = given or self._train(splits)
        trained = time.perf_counter()
        log.info("vocabulary of %d tokens after %.1f seconds", tokenizer.vocab_size, trained - started)
        done = self._write(splits, tokenizer)
        entry = write_file(self.folder_uri, TOKENIZER, tokenizer.json)
        encode_seconds = time.perf_counter() - trained
        log.info("%d splits encoded in %.1f seconds", len(splits), encode_seconds)
        shards, text_bytes = in_place([shard for task in done for shard in task.shards])
        files = self._files(done, text_bytes)
        stats = _stats(self.corpus, self.settings, tokenizer, done, files)
        inputs = {**inputs, "files": files, "used": _sha256(tokenizer), "reused_sources": sorted(self.kept.files)}
        name = self.folder_uri.rpartition("/")[2]
        publish_dataset(self.folder_uri, Manifest("tokens", name, (entry, *shards), stats, inputs), stats)
        return {
            **stats,
            "reused": False,
            "vocabulary_seconds": trained - started,
            "encode_seconds": encode_seconds,
            "tokens_per_second": stats["num_tokens"] / encode_seconds,
            "bytes_per_second": stats["num_bytes"] / encode_seconds,
        }

    def _write(self, splits: Sequence[Sequence[ByteRange]], tokenizer: Tokenizer) -> list[Tokenized]:
        items = [SplitItem(i, parts, self.kept.of_parts(parts)) for i, parts in enumerate(splits)]
        with _repetitions(self.folder_uri, splits, self.settings, self.engine) as repetitions:
            write = partial(
                write_token_shards,
                folder_uri=self.folder_uri,
                tokenizer=tokenizer,
                settings=self.settings,
                kept_uri=self.kept.folder_uri,
                repetitions=repetitions,
            )
            done = self.engine.map(write, items, "tokenize")
        if not any(task.shards for task in done):
            raise InputError("the filters of tokenize.* leave no document of this corpus; set them wider")
        return done

    def _train(self, splits: Sequence[Sequence[ByteRange]]) -> Tokenizer:
        settings = self.settings
        if settings.kind != "bpe":
            counts = self.engine.map(partial(count_units, settings=settings), splits, f"count each {settings.kind}")
            return Tokenizer.from_json(vocabulary_json(counts, settings))
        share = settings.train_bytes / sum(checked.text_bytes for checked in self.corpus.checked)
        sample = partial(sample_documents, share=share, settings=settings)
        texts = (text for task in self.engine.map(sample, splits, "sample the corpus") for text in task)
        return Tokenizer.from_json(train_bpe(texts, settings.vocab_size))

    def _files(self, done: Sequence[Tokenized], text_bytes: Counter[str]) -> list[dict[str, Any]]:
        """What the manifest says of each source, with what is unusual in it."""
        found: dict[str, Counter[str]] = {}
        for task in done:
            for name, counts in task.counts.items():
                found.setdefault(name, Counter()).update(counts)
        files = []
        for file, checked in zip(self.corpus.files(), self.corpus.checked, strict=True):
            counts = checked.counts + found.get(file["name"], Counter())
            known = self.kept.files.get(file["name"])
            files.append(
                {**file, "text_bytes": text_bytes[file["name"]], "counts": known["counts"] if known else dict(counts)}
            )
        return files


@contextmanager
def _repetitions(
    folder_uri: str, splits: Sequence[Sequence[ByteRange]], settings: TokenizeConfig, engine: Engine
) -> Iterator[Repetitions | None]:
    """Where it stands which documents are repeated, if these are to be dropped; gone when it was used."""
    if not (settings.drop_duplicates or settings.drop_near_duplicates):
        yield None
        return
    scratch_uri = join(folder_uri, f"scratch-{uuid.uuid4().hex[:12]}")
    try:
        write = partial(write_keys, folder_uri=scratch_uri, settings=settings)
        counts = engine.map(write, list(enumerate(splits)), "hash the documents")
        num_buckets = sum(counts) // BUCKET_KEYS + 1
        find = partial(
            write_repetitions,
            folder_uri=scratch_uri,
            num_splits=len(splits),
            num_buckets=num_buckets,
            keys_each=keys_of_each(settings),
        )
        engine.map(find, range(num_buckets), "find duplicates")
        name = "near_duplicate_documents" if settings.drop_near_duplicates else "duplicate_documents"
        yield Repetitions(scratch_uri, num_buckets, name)
    finally:
        delete_folder(scratch_uri)


def _stats(
    corpus: _Corpus,
    settings: TokenizeConfig,
    tokenizer: Tokenizer,
    done: Sequence[Tokenized],
    files: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    counts, by_length = Counter[str](), Counter[int]()
    for task in done:
        by_length.update(task.documents_by_length)
        for shard in task.shards:
            counts.update(shard.entry.counts)
    for file in files:
        counts.update(file["counts"])
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
