"""Reuse of earlier runs: the tokenizer that a run inherits, and the shards of files that have not changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange, divide_sources
from jobs.datasets.encoding import EncodedRange, RangeKey, range_key
from jobs.datasets.tokens import SHARDS, TokensDataset
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.champion import read_champion
from jobs.lake.layout import Lake, Pipeline, Run
from jobs.lake.manifest import FileEntry
from jobs.lake.models import TOKENIZER
from jobs.lake.uri import join, to_uri
from jobs.sources.earlier import earlier_runs
from jobs.sources.listing import Source
from jobs.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class ReusableShards:
    """The shards of an earlier dataset that have documents of files with the same content."""

    folder_uri: str = ""
    shards: dict[RangeKey, tuple[FileEntry, ...]] = field(default_factory=dict)
    """The shards that have the documents of a byte range of an earlier file, among others."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The earlier manifest's entry of each such file, by the name that it has now."""
    complete: str = ""
    """The fingerprint of the earlier dataset if all files of both corpora are the same."""

    def of_parts(self, parts: Sequence[ByteRange]) -> dict[RangeKey, EncodedRange]:
        """Return where these byte ranges are encoded, as far as they are."""
        found = {}
        for part in parts:
            if earlier := self.files.get(part.source.name):
                shards = self.shards[earlier["name"], part.start, part.end]
                found[range_key(part)] = EncodedRange(earlier["name"], shards)
        return found


def earlier_tokens(lake: Lake, corpus: str, of: Run) -> Iterator[tuple[str, TokensDataset]]:
    """Yield the ids of earlier runs on `corpus`, as `earlier_runs` finds them, and their tokens."""
    for run_id, uri, manifest in earlier_runs(lake, corpus, of):
        yield run_id, TokensDataset(uri, manifest)


def find_tokenizer(
    name: str, pipeline: Pipeline, earlier: Iterable[tuple[str, TokensDataset]]
) -> tuple[Tokenizer | None, str]:
    """Return the tokenizer that the setting `tokenize.tokenizer` names, if any, and a description of its origin.

    ``inherit`` names that of the champion of `pipeline`, or else that of the first of the `earlier` tokens.
    """
    if name == "inherit":
        champion, _ = read_champion(pipeline)
        if champion:
            uri = join(champion.model_uri, TOKENIZER)
            with suppress(FileNotFoundError):
                return Tokenizer(store.read_bytes(uri), uri), f"champion {champion.run_id}"
        for run_id, tokens in earlier:
            return tokens.read_tokenizer(), f"run {run_id}"
    if name in ("inherit", "train"):
        return None, "trained"
    uri = to_uri(name)
    try:
        data = store.read_bytes(uri)
    except OSError as error:
        raise InputError(f"tokenize.tokenizer: {uri} cannot be read ({error.strerror or 'no such file'})") from None
    return Tokenizer(data, uri), uri


def find_reusable(
    earlier: Iterable[tuple[str, TokensDataset]], inputs: dict[str, Any], settings: TokenizeConfig
) -> ReusableShards:
    """Return the shards that the new dataset can take over from the first of the earlier ones that is made as it is.

    `inputs` and `settings` are those of the new one (see `jobs.datasets.tokenization.describe_inputs`).
    """
    if settings.drop_duplicates or settings.drop_near_duplicates:
        return ReusableShards()  # which duplicates a file keeps depends on the other files
    for _, dataset in earlier:
        before = dataset.manifest.inputs
        if before["how"] == inputs["how"] and before["used"] == inputs["tokenizer"]:
            return _shards_of(dataset, inputs, settings)
    return ReusableShards()


def _shards_of(dataset: TokensDataset, inputs: dict[str, Any], settings: TokenizeConfig) -> ReusableShards:
    earlier = {_content(file): file for file in dataset.files}
    same = {file["name"]: earlier[key] for file in inputs["files"] if (key := _content(file)) in earlier}
    used = {file["name"] for file in same.values()}
    entries: dict[int, list[FileEntry]] = {}
    for entry in dataset.shards:
        number = int(entry.name.removeprefix(SHARDS).split("-")[0])
        entries.setdefault(number, []).append(entry)
    # The plan depends on names and sizes alone, so the same call gives the splits of the earlier run.
    sources = [Source(file["name"], "", file["size"]) for file in dataset.files]
    splits = divide_sources(sources, settings.split_bytes, whole_files=settings.documents == "file")
    shards = {
        range_key(part): tuple(entries.get(number, ()))
        for number, split in enumerate(splits)
        for part in split
        if part.source.name in used
    }
    before, now = ([(file["name"], file["sha256"]) for file in files] for files in (dataset.files, inputs["files"]))
    return ReusableShards(dataset.uri, shards, same, dataset.fingerprint if before == now else "")


def _content(file: Mapping[str, Any]) -> tuple[str, int, str, str | None]:
    """Return what the documents of a file and its byte ranges depend on: its bytes, and what its name says of them.

    The hash is that of the decompressed bytes, the size that of the file.
    """
    source = Source(file["name"], "", file["size"])
    return file["sha256"], file["size"], source.format, source.compression
