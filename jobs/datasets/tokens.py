"""A published dataset of tokens: its shards and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.errors import InputError
from jobs.lake.layout import Lake, Run
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.models import TOKENIZER
from jobs.lake.runs import used_datasets
from jobs.lake.store import read_file, read_manifest
from jobs.tokenizer.tokenizer import Tokenizer

SHARDS = "shards/"


@dataclass(frozen=True)
class TokensDataset:
    """A dataset of tokens with its manifest."""

    uri: str
    manifest: Manifest

    @classmethod
    def of_run(cls, run: Run) -> TokensDataset:
        """Open the tokens of a run; raise InputError if it has none yet."""
        name = used_datasets(run).get("tokens")
        dataset = cls.find(Lake(run.lake_uri), name) if name else None
        if dataset is None:
            raise InputError(f"{run.uri}: this run has no tokens yet; run its tokenize step first")
        return dataset

    @classmethod
    def find(cls, lake: Lake, fingerprint: str) -> TokensDataset | None:
        """Open the dataset with this fingerprint. Return None if there is no such dataset."""
        uri = lake.dataset("tokens", fingerprint)
        manifest = read_manifest(uri)
        return cls(uri, manifest) if manifest else None

    @property
    def fingerprint(self) -> str:
        """The fingerprint, which names the dataset."""
        return self.manifest.fingerprint

    @property
    def shards(self) -> list[FileEntry]:
        """The token shards, in the order of the corpus."""
        return self.manifest.entries(SHARDS)

    @property
    def counts(self) -> dict[str, Any]:
        """The statistics in the manifest."""
        return self.manifest.counts

    @property
    def files(self) -> list[dict[str, Any]]:
        """The files of the corpus in order: name, size, sha256, bytes of text and counts."""
        files: list[dict[str, Any]] = self.manifest.inputs["files"]
        return files

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        size: int = self.manifest.counts["vocab_size"]
        return size

    def read_tokenizer(self) -> Tokenizer:
        """Read the tokenizer."""
        return Tokenizer(read_file(self.uri, self.manifest.entry(TOKENIZER)))
