"""The families of cases. A case depends on its id alone: the seed, the family and a number, as in ``0:corpus:17``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from random import Random

FAMILY_MODULES = ("corpora", "objects", "places", "files", "tables", "tokenizers", "commands", "lakes", "terminals")


@dataclass(frozen=True)
class Case:
    """An input, and what reads it. `run` ends, or raises an error of one line."""

    description: str
    run: Callable[[], object]
    results: Path | None = None
    """The lake that `run` writes to, if any; a refused input leaves no dataset in it."""


class FaultError(Exception):
    """A bad end of a case that is no exception in this process, with its kind, such as ``half-written``."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


Family = Callable[[Random, Path], Case]
_FAMILIES: dict[str, Family] = {}


def family(name: str) -> Callable[[Family], Family]:
    """Register a function that makes a case of this family from random numbers, with its files in an empty folder."""

    def register(make: Family) -> Family:
        _FAMILIES[name] = make
        return make

    return register


def families() -> dict[str, Family]:
    """Return all families by name."""
    for module in FAMILY_MODULES:
        import_module(f"tests.fuzz.{module}")
    return dict(sorted(_FAMILIES.items()))


def case_ids(seed: int, num_cases: int, only: str = "") -> list[str]:
    """Return the ids of cases, the families in turn, or those of one family."""
    names = [only] if only else list(families())
    ids: Iterator[str] = (f"{seed}:{name}:{number}" for number in count() for name in names)
    return list(islice(ids, num_cases))


def make_case(case_id: str, folder: Path) -> Case:
    """Make a case by its id."""
    return families()[case_id.split(":")[1]](Random(case_id), folder)
