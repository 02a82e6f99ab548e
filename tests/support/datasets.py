"""Helpers for tests of the tokenize and windows steps."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.config import resolve
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Item, Result
from jobs.engine.inline import InlineEngine
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake
from jobs.lake.store import read_json, write_bytes
from jobs.lake.uri import join
from jobs.steps import tokenize, windows

PASSAGE_PATH = Path(__file__).parents[1] / "data" / "scandal.txt"
PASSAGE = PASSAGE_PATH.read_bytes() + b"\n"


class TravelEngine(InlineEngine):
    """An engine that pickles functions, items and results, as Spark does, and runs the last item first."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        function, items = pickle.loads(pickle.dumps((function, list(items))))
        results = [pickle.loads(pickle.dumps(function(item))) for item in reversed(items)]
        return results[::-1]


def write_corpus(folder: str, texts: Mapping[str, bytes]) -> str:
    """Write files of a corpus by name; return their folder."""
    for name, data in texts.items():
        write_bytes(join(folder, name), data)
    return folder


class Pipeline:
    """The tokenize and windows steps of one run."""

    def __init__(self, lake_uri: str, corpus: str, run_id: str = "first", **settings: object) -> None:
        defaults = {"tokenize.vocab_size": 400, "tokenize.split_bytes": 4096, "windows.size": 16}
        keys = {key.replace("__", "."): value for key, value in settings.items()}
        self.config = resolve(corpus, "tiny", {**defaults, **keys})
        self.lake = Lake(lake_uri)
        self.run = self.lake.run(run_id, DEFAULT)
        self.lines: list[str] = []
        self.stats: Any = {}

    def tokenize(self) -> Any:
        return tokenize.run(self.run, self.config, TravelEngine(), self.lines.append)

    def windows(self) -> Any:
        return windows.run(self.run, self.config, TravelEngine(), self.lines.append)

    @property
    def datasets(self) -> Any:
        return read_json(self.run.datasets)

    @property
    def tokens(self) -> TokensDataset:
        return TokensDataset.of_run(self.run)
