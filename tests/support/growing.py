"""Nights of one pipeline with a fixed split, over a corpus that grows, shrinks and is renamed."""

from typing import Any

import numpy as np

from jobs.corpus.texts import Texts
from jobs.datasets.fixed_sides import Decisions, read_decisions
from jobs.datasets.tokens import TokensDataset
from jobs.datasets.windows import Side, WindowSet
from jobs.lake.layout import Lake, Run
from jobs.lake.layout import Pipeline as PipelineFolders
from jobs.lake.store import delete_file, read_json, write_bytes
from jobs.lake.uri import join
from tests.support.datasets import Pipeline
from tests.support.prose import prose

SETTINGS = {
    "tokenize__split_bytes": 1 << 16,
    "windows__split": "fixed",
    "tokenize__documents": "line",
    "tokenize__tokenizer": "inherit",
}


def line(seed: int, words: int = 40) -> bytes:
    return prose(seed, words, line=10**9, paragraph=10**9)


def lines(first: int, count: int = 40) -> bytes:
    return b"\n".join(line(seed) for seed in range(first, first + count))


def edited(text: bytes, word: int = 7) -> bytes:
    words = text.split(b" ")
    return b" ".join([*words[:word], b"changed", *words[word + 1 :]])


class Nights:
    """Nights of one pipeline over a folder of files that changes."""

    def __init__(self, lake_uri: str, **settings: Any) -> None:
        self.lake_uri, self.settings = lake_uri, SETTINGS | settings
        self.corpus = join(lake_uri, "texts")
        self.count = 0
        self.trained, self.validated = set[str](), set[str]()

    def write(self, **files: bytes) -> None:
        for name, data in files.items():
            write_bytes(join(self.corpus, f"{name}.txt"), data)

    def delete(self, *names: str) -> None:
        for name in names:
            delete_file(join(self.corpus, f"{name}.txt"))

    def begin(self, **settings: Any) -> Pipeline:
        self.count += 1
        night = Pipeline(self.lake_uri, self.corpus, f"night {self.count}", **self.settings | settings)
        write_bytes(night.run.config, night.config.to_json().encode())
        night.tokenize()
        return night

    def make(self, **settings: Any) -> Pipeline:
        """Run a night."""
        night = self.begin(**settings)
        night.stats = night.windows()
        return night

    def run(self, **settings: Any) -> Pipeline:
        """Run a night; check that what it trains on was never validation, nor the other way round."""
        night = self.make(**settings)
        self.trained |= texts_of(night.run, "train")
        self.validated |= texts_of(night.run, "valid")
        assert not self.trained & self.validated
        return night

    @property
    def decisions(self) -> Decisions:
        return read_decisions(PipelineFolders(self.lake_uri))

    def side(self, text: bytes) -> int:
        """Return the side of a text."""
        return int(self.decisions.sides_of(Texts.of([text]).hashes())[0])


def texts_of(run: Run, side: Side) -> set[str]:
    """Return the documents of a side of a run that its windows hold from start to end, read from the windows alone."""
    found = WindowSet.open(Lake(run.lake_uri), read_json(run.datasets)["windows"], side)
    ids = found.read(np.arange(found.num_windows))[:, :-1].reshape(-1)  # windows do not overlap
    text = TokensDataset.of_run(run).read_tokenizer().decode(ids)
    return set(text.split("<|endoftext|>")[1:-1])
