"""Reuse of earlier runs: the tokenizer that a run inherits, and the shards of files that have not changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.config import Config, TokenizeConfig
from jobs.corpus.splits import ByteRange, plan_splits
from jobs.datasets.encoding import RangeKey, range_key
from jobs.datasets.publish import used_datasets
from jobs.datasets.tokens import SHARDS, TOKENIZER, TokensDataset
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.champion import read_champion
from jobs.lake.layout import Lake, Run
from jobs.lake.manifest import FileEntry
from jobs.lake.uri import join, to_uri
from jobs.sources.listing import Source
from jobs.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class EarlierTokens:
    """The tokens of an earlier run."""

    run_id: str
    dataset: TokensDataset


@dataclass(frozen=True)
class GivenTokenizer:
    """A tokenizer that is not trained on the corpus, and a description of its origin."""

    tokenizer: Tokenizer
    origin: str


@dataclass(frozen=True)
class ReusableShards:
    """The shards of an earlier dataset that have documents of files with the same content."""

    folder_uri: str = ""
    shards: dict[RangeKey, tuple[FileEntry, ...]] = field(default_factory=dict)
    """The shards that have the documents of a byte range, among others."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The earlier manifest's entry of each such file."""
    complete: str = ""
    """The fingerprint of the earlier dataset if all files of both corpora are the same."""

    def of_parts(self, parts: Sequence[ByteRange]) -> dict[RangeKey, tuple[FileEntry, ...]]:
        """Return the shards of these byte ranges, as far as they can be reused."""
        return {key: self.shards[key] for part in parts if (key := range_key(part)) in self.shards}


def latest_tokens(lake: Lake, corpus: str, run_id: str) -> EarlierTokens | None:
    """Return the tokens of the latest other run on `corpus` that has some."""
    others = [lake.run(name) for name in store.list_folders(lake.runs) if name != run_id]
    written = [(found.modified_at, run.run_id) for run in others if (found := store.info(run.datasets))]
    for _, name in sorted(written, reverse=True):
        run = lake.run(name)
        tokens = used_datasets(run).get("tokens") if _corpus_of(run) == corpus else None
        dataset = TokensDataset.find(lake, tokens) if tokens else None
        if dataset and "how" in dataset.manifest.inputs:
            return EarlierTokens(name, dataset)
    return None


def _corpus_of(run: Run) -> str | None:
    try:
        return Config.from_json(store.read_bytes(run.config).decode(), run.config).corpus
    except (FileNotFoundError, InputError):  # written by a version with other settings
        return None


def find_tokenizer(name: str, lake: Lake, earlier: EarlierTokens | None) -> GivenTokenizer | None:
    """Return the tokenizer that the setting `tokenize.tokenizer` names; None if one must be trained.

    Args:
        name: ``train``, ``inherit``, or the path or URI of a ``tokenizer.json``.
        lake: The lake, whose champion comes first for ``inherit``.
        earlier: The tokens that come second for ``inherit``.

    Raises:
        InputError: if the file cannot be read or is no usable tokenizer.
    """
    if name == "train":
        return None
    if name == "inherit":
        champion = _champion_tokenizer(lake)
        if champion or earlier is None:
            return champion
        return GivenTokenizer(earlier.dataset.read_tokenizer(), f"run {earlier.run_id}")
    uri = to_uri(name)
    try:
        data = store.read_bytes(uri)
    except OSError as error:
        raise InputError(f"tokenize.tokenizer: {uri} cannot be read ({error.strerror or 'no such file'})") from None
    return GivenTokenizer(Tokenizer.from_json(data, uri), uri)


def _champion_tokenizer(lake: Lake) -> GivenTokenizer | None:
    champion, _ = read_champion(lake)
    if champion is None:
        return None
    uri = join(champion.model_uri, TOKENIZER)
    try:
        return GivenTokenizer(Tokenizer.from_json(store.read_bytes(uri), uri), f"champion {champion.run_id}")
    except FileNotFoundError:
        return None


def find_reusable(earlier: EarlierTokens | None, inputs: dict[str, Any], settings: TokenizeConfig) -> ReusableShards:
    """Return the shards of an earlier dataset that the new one can take over.

    Args:
        earlier: The earlier dataset, if there is one.
        inputs: The inputs of the new dataset (see `jobs.datasets.tokenization.describe_inputs`).
        settings: The settings of the new dataset.
    """
    if earlier is None or settings.drop_duplicates or settings.drop_near_duplicates:
        return ReusableShards()  # which duplicates a file keeps depends on the other files
    dataset, before = earlier.dataset, earlier.dataset.manifest.inputs
    if before["how"] != inputs["how"] or before["used"] != inputs["tokenizer"]:
        return ReusableShards()
    now = {file["name"]: file["sha256"] for file in inputs["files"]}
    same = {file["name"]: file for file in dataset.files if now.get(file["name"]) == file["sha256"]}
    entries: dict[int, list[FileEntry]] = {}
    for entry in dataset.shards:
        number = int(entry.name.removeprefix(SHARDS).split("-")[0])
        entries.setdefault(number, []).append(entry)
    # The plan depends on names and sizes alone, so the same call gives the splits of the earlier run.
    sources = [Source(file["name"], "", file["size"]) for file in dataset.files]
    splits = plan_splits(sources, settings.split_bytes, whole_files=settings.documents == "file")
    shards = {
        range_key(part): tuple(entries.get(number, ()))
        for number, split in enumerate(splits)
        for part in split
        if part.source.name in same
    }
    is_complete = [(file["name"], file["sha256"]) for file in dataset.files] == list(now.items())
    return ReusableShards(dataset.uri, shards, same, dataset.fingerprint if is_complete else "")
