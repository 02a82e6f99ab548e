"""Finds what a run can reuse from earlier runs: the tokenizer, and the shards of files that have not changed."""

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
    """The shards of an earlier dataset that contain the documents of files whose content has not changed."""

    folder_uri: str = ""
    shards: dict[RangeKey, tuple[FileEntry, ...]] = field(default_factory=dict)
    """For each byte range of an unchanged file, the shards that contain its documents. They may also contain other
    documents. The name in a key is the file's name in the earlier dataset."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """A dict from the name of each unchanged file in the new corpus to the file's entry in the earlier manifest."""
    complete: str = ""
    """The fingerprint of the earlier dataset if its corpus and the new corpus have the same files, else empty."""

    def of_parts(self, parts: Sequence[ByteRange]) -> dict[RangeKey, EncodedRange]:
        """Return the shards for the byte ranges in `parts` that are already encoded in the earlier dataset."""
        found = {}
        for part in parts:
            if earlier := self.files.get(part.source.name):
                shards = self.shards[earlier["name"], part.start, part.end]
                found[range_key(part)] = EncodedRange(earlier["name"], shards)
        return found


def earlier_tokens(lake: Lake, corpus: str, of: Run) -> Iterator[tuple[str, TokensDataset]]:
    """Yield the run id and the tokens dataset of each other run on `corpus` (see `earlier_runs`), the latest first."""
    for run_id, uri, manifest in earlier_runs(lake, corpus, of):
        yield run_id, TokensDataset(uri, manifest)


def find_tokenizer(
    name: str, pipeline: Pipeline, earlier: Iterable[tuple[str, TokensDataset]]
) -> tuple[Tokenizer | None, str]:
    """Return the tokenizer that the setting `tokenize.tokenizer` names, and a description of its origin.

    ``inherit`` means the tokenizer of the champion of `pipeline`. If there is no champion, it means the tokenizer of
    the first dataset in `earlier`. The returned tokenizer is None if a new one must be trained.
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
        raise InputError(
            f"tokenize.tokenizer: {uri} cannot be read ({error.strerror or 'no such file'}); correct the setting"
        ) from None
    return Tokenizer(data, uri), uri


def find_reusable(
    earlier: Iterable[tuple[str, TokensDataset]], inputs: dict[str, Any], settings: TokenizeConfig
) -> ReusableShards:
    """Return the shards that a new dataset can copy from an earlier one.

    The earlier dataset is the first in `earlier` that was made with the same settings, code and tokenizer. `settings`
    and `inputs` are those of the new dataset (see `jobs.datasets.tokenization.describe_inputs`). The result is empty if
    there is no such dataset, or if the settings drop duplicates.
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
    # The input splits depend only on names and sizes, so this call gives those of the earlier run.
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
    """Return what determines the documents and byte ranges of a file: hash, size, format and compression.

    The hash is that of the decompressed bytes, and the size is that of the stored file. The file's name determines
    format and compression.
    """
    source = Source(file["name"], "", file["size"])
    return file["sha256"], file["size"], source.format, source.compression
