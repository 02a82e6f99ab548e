"""Operations of a night that die between two of their writes: what they leave is readable, and a retry ends them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.corpus.texts import Texts
from jobs.datasets.fixed_sides import UNDECIDED, read_decisions
from jobs.evaluation.frozen import grow, read_latest, read_part
from jobs.lake import store
from jobs.lake.champion import read_champion
from jobs.lake.gc import delete_garbage, find_garbage
from jobs.lake.layout import MANIFEST, Lake, Pipeline
from jobs.lake.uri import join
from nightjar.tasks.promotion import promote
from tests.support.datasets import TravelEngine
from tests.support.dying import Death, dying_after
from tests.support.finished import config_of, finished
from tests.support.garbage import LATER, check, make_champion, make_run, verify
from tests.support.growing import Nights, line, lines


@dataclass(frozen=True)
class Operation:
    """Something that changes a lake in several writes."""

    name: str
    act: Callable[[], Any]
    look: Callable[[], Any]
    """Read what the operation changes; fail if it cannot be read, or has lost something."""

    def count_cuts(self, lake: Path) -> int:
        """Let the operation die before each of its changes in turn, and do it again; return the number of changes.

        Raises:
            AssertionError: if a retry leaves something else than an operation that does not die.
        """
        before = lake.with_name(f"{lake.name} before")
        shutil.copytree(lake, before, symlinks=True)
        self.act()
        expected, cuts = self.look(), 0
        while True:
            shutil.rmtree(lake)
            shutil.copytree(before, lake, symlinks=True)
            try:
                with dying_after(cuts):
                    self.act()
            except Death:
                _check_manifests(lake)
                self.look()
                self.act()
                assert self.look() == expected, f"{self.name}: another result after a death before change {cuts + 1}"
                cuts += 1
            else:
                return cuts


def _check_manifests(lake: Path) -> None:
    """Check that every folder with a manifest has the files that it lists."""
    for manifest in lake.rglob(MANIFEST):
        verify(manifest.parent.as_uri())


def promotion(lake: Path) -> Operation:
    """A model takes the champion's place."""
    folders = Lake(lake.as_uri())
    first = finished(folders, "one")
    promote(first, "test", config_of())
    champion, _ = read_champion(Pipeline.of(first))
    assert champion
    better = finished(folders, "two", "better", loss=100.0, champion=champion.model)

    def look() -> tuple[str, int]:
        found, _ = read_champion(Pipeline.of(first))
        assert found
        verify(join(folders.models, found.model))
        assert [change.run for change in found.history] in ([first.folder], [first.folder, better.folder])
        return found.model, len(found.history)

    return Operation("promotion", lambda: promote(better, "test", config_of(), request="two"), look)


def _grown(lake: Path) -> Nights:
    nights = Nights(lake.as_uri(), promotion__documents=30)
    nights.write(a=lines(0), b=lines(100))
    first = nights.make()
    grow(first.run, first.config, first.tokens, TravelEngine())
    nights.write(c=lines(200), d=lines(300))
    return nights


def split_growth(lake: Path) -> Operation:
    """New documents get their sides."""
    nights = _grown(lake)
    hashes = Texts.of([line(seed) for first in (0, 100, 200, 300) for seed in range(first, first + 40)]).hashes()
    known = nights.decisions.sides_of(hashes).tolist()
    night = nights.begin()

    def look() -> tuple[list[int], ...]:
        decided = read_decisions(Pipeline(nights.lake_uri)).sides_of(hashes).tolist()
        assert all(now == then for now, then in zip(decided, known, strict=True) if then != UNDECIDED)
        return decided, [night.stats.get(name, 0) for name in ("num_train_windows", "num_valid_windows")]

    def act() -> None:
        night.stats = night.windows()

    return Operation("growth of the split", act, look)


def evaluation_set_growth(lake: Path) -> Operation:
    """New validation documents join the evaluation set."""
    nights = _grown(lake)
    known = _documents(nights)
    night = nights.make()

    def look() -> list[str]:
        found = _documents(nights)
        assert found[: len(known)] == known
        return found

    return Operation(
        "growth of the evaluation set", lambda: grow(night.run, night.config, night.tokens, TravelEngine()), look
    )


def _documents(nights: Nights) -> list[str]:
    frozen = read_latest(Pipeline(nights.lake_uri))
    return [each.document for entry in frozen.parts for each in read_part(frozen.uri, entry)]


def garbage_collection(lake: Path) -> Operation:
    """What no run needs is deleted."""
    folders = Lake(lake.as_uri())
    runs = [make_run(folders, number, tokens="shared") for number in range(3)]
    make_champion(folders, runs[1])

    def act() -> None:
        list(delete_garbage(folders, find_garbage(folders, time.time() + LATER, keep_runs=1), "ann"))

    def look() -> list[str]:
        check(folders, runs[1:])
        return sorted(store.list_folders(folders.models))

    return Operation("gc", act, look)


OPERATIONS: Sequence[Callable[[Path], Operation]] = (
    promotion, split_growth, evaluation_set_growth, garbage_collection
)  # fmt: skip


def count_cuts(prepare: Callable[[Path], Operation], folder: Path) -> tuple[str, int]:
    """Return the name of an operation, and before how many of its changes it died and was done again."""
    operation = prepare(folder / "lake")
    return operation.name, operation.count_cuts(folder / "lake")
