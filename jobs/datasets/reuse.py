"""What earlier runs leave to a new one: a tokenizer to inherit, and the tokens of files that have not changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.config import Config, TokenizeConfig
from jobs.corpus.splits import ByteRange, plan_splits
from jobs.datasets.dataset import TOKENIZER, used_datasets
from jobs.datasets.encoding import Part, part_key
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.champion import read_champion
from jobs.lake.layout import Lake, Run
from jobs.lake.store import FileEntry, Manifest
from jobs.lake.uri import join
from jobs.sources.listing import Source
from jobs.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Inherited:
    """A tokenizer, and where it comes from."""

    tokenizer: Tokenizer
    origin: str


@dataclass(frozen=True)
class Kept:
    """Which tokens of an earlier dataset can be taken over: those of files with the same content."""

    folder_uri: str = ""
    shards: dict[Part, tuple[FileEntry, ...]] = field(default_factory=dict)
    """For each part of such a file (name, start, end), the shards that hold its documents, among others."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the earlier manifest says of each such file."""

    complete: str = ""
    """The name of the earlier dataset, if it is the very one that is wanted."""

    def of_parts(self, parts: Sequence[ByteRange]) -> dict[Part, tuple[FileEntry, ...]]:
        """What can be taken over for some parts."""
        return {key: self.shards[key] for part in parts if (key := part_key(part)) in self.shards}

    @classmethod
    def of_dataset(
        cls, folder_uri: str, before: Manifest, files: Sequence[dict[str, Any]], how: TokenizeConfig
    ) -> Kept:
        """What of an earlier dataset is of use for `files` (name, size, sha256), which are read and encoded alike."""
        now = {file["name"]: file["sha256"] for file in files}
        if how.drop_duplicates or how.drop_near_duplicates:
            return cls()  # what is kept of a file depends on the others
        known = {file["name"]: file for file in before.inputs["files"]}
        same = {name: file for name, file in known.items() if now.get(name) == file["sha256"]}
        entries: dict[int, list[FileEntry]] = {}
        for entry in before.entries("shards/"):
            entries.setdefault(int(entry.name.removeprefix("shards/").split("-")[0]), []).append(entry)
        # The plan depends on names and sizes alone, so it tells which shards came of which parts.
        sources = [Source(file["name"], "", file["size"]) for file in before.inputs["files"]]
        splits = plan_splits(sources, how.split_bytes, whole_files=how.documents == "file")
        shards = {
            part_key(part): tuple(entries.get(number, ()))
            for number, split in enumerate(splits)
            for part in split
            if part.source.name in same
        }
        is_all = [(file["name"], file["sha256"]) for file in before.inputs["files"]] == list(now.items())
        return cls(folder_uri, shards, same, before.fingerprint if is_all else "")


def latest_tokens(home: Lake, corpus: str, run_id: str) -> tuple[str, Manifest] | None:
    """The latest other run on `corpus` that has a dataset of tokens: its id, and the dataset's manifest."""
    others = [home.run(name) for name in store.list_folders(home.runs) if name != run_id]
    written = [(moment, run.run_id) for run in others if (moment := store.modified_at(run.datasets)) is not None]
    for _, name in sorted(written, reverse=True):
        run = home.run(name)
        tokens = used_datasets(run).get("tokens") if _corpus_of(run) == corpus else None
        manifest = store.read_manifest(home.tokens(tokens)) if tokens else None
        if manifest and "how" in manifest.inputs:
            return name, manifest
    return None


def champion_tokenizer(home: Lake) -> Inherited | None:
    """The tokenizer of the model that is in use, if there is one.

    Raises:
        InputError: if its file cannot be used, or what should tell the champion does not.
    """
    champion = read_champion(home)
    if champion is None:
        return None
    uri = join(champion.model_uri, TOKENIZER)
    try:
        return Inherited(Tokenizer.from_json(store.read_bytes(uri), uri), f"champion {champion.run_id}")
    except FileNotFoundError:
        return None


def _corpus_of(run: Run) -> str | None:
    try:
        return Config.from_json(store.read_bytes(run.config).decode(), run.config).corpus
    except (FileNotFoundError, InputError):  # of a version with other settings
        return None
