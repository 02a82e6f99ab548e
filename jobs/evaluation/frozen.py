"""The frozen evaluation set of a pipeline: validation documents on which all of its models are compared.

A version is a folder ``<number>`` in `Pipeline.frozen`, with files of documents and a manifest. The manifest is written
last, and only if no other run has written this version. Each line of a file is a document: the sha256 of its text, the
hash by which its side is decided, and the text. A version has all documents of the previous version, and new ones until
the wanted number is reached. A document that is nearly equal to one in the set is not added, since it would count
twice. Documents that the lake has forgotten are not in later versions.

Runs of the pipeline with ``windows.split=fixed`` never train on documents of the set.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from jobs.config import Config, TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange, divide_sources
from jobs.corpus.check import check_corpus
from jobs.corpus.near_keys import Keys, keys_of_documents
from jobs.corpus.reading import read_documents
from jobs.corpus.texts import Texts
from jobs.datasets.fixed_sides import VALID, read_decisions
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.errors import DamagedError, InputError, LakeError, counted
from jobs.evaluation.candidates import Candidate, find_candidates
from jobs.lake import store
from jobs.lake.forgotten import hashes_of, read_forgotten
from jobs.lake.layout import Lake, Pipeline, Run
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join
from jobs.sources.listing import Listing, list_corpus

log = logging.getLogger(__name__)

DOCUMENTS = "documents"
_MAX_PARTS = 32
_MAX_RACES = 8


@dataclass(frozen=True)
class FrozenDocument:
    """A document of the set."""

    document: str
    """The sha256 of the text."""
    hash: int
    """The hash of the text by which the split decides the document's side."""
    text: str

    @property
    def num_bytes(self) -> int:
        """The number of bytes of the text in UTF-8."""
        return len(self.text.encode())


@dataclass(frozen=True)
class FrozenSet:
    """A version of the evaluation set of a pipeline."""

    uri: str
    version: str
    """The number of the version; "" if there is none yet."""
    parts: tuple[FileEntry, ...] = ()
    """The files of documents, each small enough for a task."""

    @property
    def num_documents(self) -> int:
        """The number of documents."""
        return sum(entry.counts["documents"] for entry in self.parts)


def read_part(uri: str, entry: FileEntry) -> list[FrozenDocument]:
    """Return the documents of a file of the set, after a check of the file's hash."""
    return [FrozenDocument(**json.loads(line)) for line in store.read_file(uri, entry).splitlines()]


def read_latest(pipeline: Pipeline) -> FrozenSet:
    """Return the latest version of a pipeline's evaluation set. Return an empty set if there is no version."""
    for version in sorted((name for name in store.list_folders(pipeline.frozen) if name.isdecimal()), reverse=True):
        uri = join(pipeline.frozen, version)
        if manifest := store.read_manifest(uri):
            return FrozenSet(uri, version, tuple(manifest.entries(DOCUMENTS)))
    return FrozenSet("", "")


def grow(run: Run, config: Config, tokens: TokensDataset, engine: Engine) -> FrozenSet:
    """Add validation documents of the run's corpus to the pipeline's set, if it is not full. Return the latest version.

    Documents that the lake has forgotten are removed first.

    Raises:
        InputError: if the set is empty and the corpus has no validation document.
        DamagedError: if a document of the set is not on the validation side.
    """
    pipeline = Pipeline.of(run)
    forgotten = hashes_of(read_forgotten(Lake(run.lake_uri)))
    for _ in range(_MAX_RACES):
        frozen = read_latest(pipeline)
        uri = join(pipeline.frozen, f"{int(frozen.version or 0) + 1:08d}")
        if forgotten and (left := _without(forgotten, frozen, uri, engine)) is not None:
            _publish(uri, frozen, *left)
            continue
        room = config.promotion.documents - frozen.num_documents
        piece_bytes = config.text_settings.max_piece_bytes if room > 0 else None
        known = _read_keys(frozen, pipeline, engine, piece_bytes)
        chosen = find_candidates(tokens, read_decisions(pipeline), known, room, engine) if room > 0 else []
        new = _write_documents(uri, chosen, run, config, tokens, engine) if chosen else []
        if not new:
            if not frozen.num_documents:
                raise InputError(f"{pipeline.frozen}: no validation document to compare models on; give more text")
            return frozen
        if _publish(uri, frozen, frozen.parts, new):
            documents = counted(frozen.num_documents + len(chosen), "document")
            log.info("evaluation set: version %s has %s", uri, documents)
    raise LakeError(
        f"{pipeline.frozen}: not updated, since each of {_MAX_RACES} attempts found that another run had just published"
        " a version; try again"
    )


def _without(
    forgotten: Sequence[int], frozen: FrozenSet, uri: str, engine: Engine
) -> tuple[Sequence[FileEntry], Sequence[FileEntry]] | None:
    """Rewrite the files of a set that contain forgotten documents. The new files, below `uri`, lack these documents.

    Returns:
        The files that were not rewritten, and the new files. None if no file contains a forgotten document.
    """
    write = partial(write_without, frozen_uri=frozen.uri, uri=uri, forgotten=frozenset(forgotten))
    written = engine.map(write, frozen.parts, "take forgotten documents out of the evaluation set")
    if all(entry == before for entry, before in zip(written, frozen.parts, strict=True)):
        return None
    kept = [entry for entry in written if entry in frozen.parts]
    return kept, [entry for entry in written if entry is not None and entry not in kept]


def write_without(entry: FileEntry, *, frozen_uri: str, uri: str, forgotten: frozenset[int]) -> FileEntry | None:
    """Rewrite a file of the set below `uri`, without the forgotten documents.

    Returns:
        The entry of the new file. If no document is forgotten, nothing is written, and `entry` is returned. None if all
        documents are forgotten.
    """
    documents = read_part(frozen_uri, entry)
    kept = [document for document in documents if document.hash not in forgotten]
    if len(kept) == len(documents):
        return entry
    return _write_part(uri, [asdict(document) for document in kept]) if kept else None


def _publish(uri: str, before: FrozenSet, kept: Sequence[FileEntry], new: Sequence[FileEntry]) -> bool:
    """Publish a version of the set: the files `kept` of the previous version `before`, and the `new` files.

    Return False if another run has published this version already.
    """
    for entry in kept:
        store.copy(join(before.uri, entry.name), join(uri, entry.name))
    files = (*kept, *new)
    counts = {name: sum(entry.counts[name] for entry in files) for name in ("documents", "bytes")}
    names = "".join(entry.sha256 for entry in files)
    return store.publish_manifest(uri, Manifest("frozen", hashlib.sha256(names.encode()).hexdigest(), files, counts))


def _read_keys(frozen: FrozenSet, pipeline: Pipeline, engine: Engine, piece_bytes: int | None) -> Keys:
    """Return the MinHash keys of all documents of a set. Return no keys if `piece_bytes` is None.

    Raises:
        DamagedError: if a document of the set is not on the validation side.
    """
    read = partial(keys_of_part, uri=frozen.uri, piece_bytes=piece_bytes)
    found = engine.map(read, frozen.parts, "read the evaluation set")
    decisions = read_decisions(pipeline)
    for hashes, _ in found:
        if (decisions.sides_of(hashes) != VALID).any():
            raise DamagedError(
                f"{frozen.uri}: some documents are not on the validation side in {pipeline.split}; delete"
                f" {pipeline.frozen} to choose a new evaluation set"
            )
    return np.concatenate([np.zeros(0, np.uint64), *(keys.reshape(-1) for _, keys in found)])


def keys_of_part(entry: FileEntry, *, uri: str, piece_bytes: int | None) -> tuple[Keys, Keys]:
    """Return the hashes of the documents in a file of the set, and their MinHash keys, of shape (documents, 14).

    If `piece_bytes` is None, the keys are empty.
    """
    texts = Texts.of(document.text.encode() for document in read_part(uri, entry))
    keys = keys_of_documents(texts, piece_bytes) if piece_bytes else np.zeros(0, np.uint64)
    return texts.hashes(), keys


def _write_documents(
    uri: str, chosen: Sequence[Candidate], run: Run, config: Config, tokens: TokensDataset, engine: Engine
) -> list[FileEntry]:
    """Write the texts of chosen documents below `uri`.

    Documents from files that have changed since the tokenize step are left out.
    """
    settings = config.text_settings
    tokenized = {file["name"]: file["sha256"] for file in tokens.files}
    names = {candidate.source for candidate in chosen}
    listing = list_corpus(config.corpus, lake_uri=run.lake_uri)
    wanted = [source for source in listing.sources if source.name in names]
    if not wanted:
        return []
    checked = check_corpus(Listing(listing.places, wanted, []), settings, engine)
    sources = [each.source for each in checked if each.sha256 == tokenized[each.source.name]]
    splits = divide_sources(sources, settings.split_bytes, whole_files=settings.documents == "file")
    size = max(1, -(-len(splits) // _MAX_PARTS))
    groups = [splits[start : start + size] for start in range(0, len(splits), size)]
    write = partial(write_part, uri=uri, chosen=tuple(chosen), settings=settings)
    return [entry for entry in engine.map(write, groups, "write documents of the evaluation set") if entry]


def write_part(
    splits: Sequence[Sequence[ByteRange]], *, uri: str, chosen: Sequence[Candidate], settings: TokenizeConfig
) -> FileEntry | None:
    """Write the chosen documents that begin in some input splits of the corpus. Return None if there are none."""
    rows = [
        {"document": hashlib.sha256(text).hexdigest(), "hash": found, "text": text.decode()}
        for found, text in _read_chosen((part for split in splits for part in split), chosen, settings)
    ]
    return _write_part(uri, rows) if rows else None


def _write_part(uri: str, rows: Sequence[Mapping[str, Any]]) -> FileEntry:
    num_bytes = sum(len(str(row["text"]).encode()) for row in rows)
    return store.write_shard(uri, f"{DOCUMENTS}.jsonl", to_jsonl(rows), documents=len(rows), bytes=num_bytes)


def _read_chosen(
    parts: Iterator[ByteRange], chosen: Sequence[Candidate], settings: TokenizeConfig
) -> Iterator[tuple[int, bytes]]:
    """Yield the hash and the text of each chosen document in some byte ranges of the corpus, once per document."""
    left = {(each.source, each.offset, each.hash) for each in chosen}
    wanted = np.array([each.hash for each in chosen], np.uint64)
    for part in parts:
        for batch in read_documents(part, settings):
            hashes = batch.texts.hashes()
            for i in np.flatnonzero(np.isin(hashes, wanted)).tolist():
                key = (part.source.name, int(batch.offsets[i]), int(hashes[i]))
                if key in left:
                    left.remove(key)
                    yield key[2], batch.texts[i]
