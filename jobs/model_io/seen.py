"""Which models of a lake have seen a document, as their runs' tokens and their lineage tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jobs.datasets.shards import TokenShard
from jobs.datasets.sides import TRAIN, VALID, Keys, read_decisions
from jobs.datasets.tokens import TokensDataset
from jobs.lake import store
from jobs.lake.champion import all_pipelines, read_champion
from jobs.lake.layout import MANIFEST, Lake, Pipeline, Run
from jobs.lake.models import parent_of
from jobs.lake.runs import all_runs, used_datasets
from jobs.lake.uri import join
from jobs.model_io.lineage import read_lineage

Saw = Literal["trained on", "validated on", "trained or validated on", "not known"]
"""How a model saw a document; not known if the tokens of its run were deleted."""


@dataclass(frozen=True)
class Sighting:
    """A model that has seen a document, or that may have."""

    run: Run
    """The run that trained it."""
    saw: Saw
    through: str = ""
    """The folder of the run whose model it started from, if it saw the document there alone."""
    champion_of: tuple[str, ...] = ()
    """The pipelines whose champion it is."""


def find_sightings(lake: Lake, hashes: Sequence[int]) -> Iterator[Sighting]:
    """Yield the models that have seen one of some documents, or for which that is not known, by their runs.

    The tokens of all runs that have a model are read once, so this takes minutes for a large lake.
    """
    runs = {run.folder: run for run in all_runs(lake) if store.exists(join(run.model, MANIFEST))}
    tokens = {folder: used_datasets(run).get("tokens", "") for folder, run in runs.items()}
    found = {name: _find(lake, name, hashes) for name in sorted(set(tokens.values()))}
    direct = {folder: saw for folder, run in runs.items() if (saw := _how(run, found[tokens[folder]]))}
    champions = {folder: tuple(names) for folder, names in _champions(lake).items()}
    parents = {folder: _parent_of(run) for folder, run in runs.items()}
    for folder, run in sorted(runs.items()):
        if saw := direct.get(folder):
            yield Sighting(run, saw, champion_of=champions.get(folder, ()))
        elif through := next((each for each in _ancestors(folder, parents) if each in direct), None):
            yield Sighting(run, direct[through], through, champions.get(folder, ()))


def _find(lake: Lake, tokens: str, hashes: Sequence[int]) -> Keys | None:
    """Return the hashes that documents of a dataset have; None if there is no such dataset any more."""
    dataset = TokensDataset.find(lake, tokens) if tokens else None
    if dataset is None:
        return None
    wanted = np.array(hashes, np.uint64)
    parts = [np.intersect1d(wanted, TokenShard.open(dataset.uri, entry).hash) for entry in dataset.shards]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))


def _how(run: Run, found: Keys | None) -> Saw | None:
    """Return how the model of a run saw documents that are among its tokens; None if it saw none of them."""
    if found is None:
        return "not known"
    if not len(found):
        return None
    if store.read_json(run.config)["windows"]["split"] != "fixed":
        return "trained or validated on"
    sides = read_decisions(Pipeline.of(run)).sides_of(found)
    if (sides == TRAIN).any():
        return "trained on"
    return "validated on" if (sides == VALID).any() else None


def _parent_of(run: Run) -> str:
    """Return the folder of the run whose model a run started from; "" if it started from none of this lake."""
    lineage = read_lineage(run.model)
    if lineage is None:
        return parent_of(run)
    return lineage.start.run if lineage.start else ""


def _ancestors(folder: str, parents: Mapping[str, str]) -> Iterator[str]:
    seen = {folder}
    while (folder := parents.get(folder, "")) and folder not in seen:
        seen.add(folder)
        yield folder


def _champions(lake: Lake) -> dict[str, list[str]]:
    """Return the names of the pipelines whose champion a run trained, by the folder of the run."""
    found: dict[str, list[str]] = {}
    for pipeline in all_pipelines(lake):
        champion, _ = read_champion(pipeline)
        if champion is not None:
            found.setdefault(champion.run_folder, []).append(pipeline.name)
    return found
