"""Finds the models of a lake that were trained or validated on a document.

A sighting is one such model, together with how it used the document. A model that started from the weights of an
earlier model also counts as having used the documents of that model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from jobs.config.stored import get
from jobs.datasets.fixed_sides import TRAIN, VALID, Keys, read_decisions
from jobs.datasets.shards import TokenShard
from jobs.datasets.tokens import TokensDataset
from jobs.errors import reading
from jobs.lake import store
from jobs.lake.champion import all_pipelines, read_champion
from jobs.lake.layout import MANIFEST, Lake, Pipeline, Run
from jobs.lake.models import parent_of
from jobs.lake.runs import all_runs, used_datasets
from jobs.lake.uri import join
from jobs.model_io.lineage import read_lineage

Saw = Literal["trained on", "would train on", "trained or validated on", "not known", "validated on"]
"""How a model used a document, in the order from the strongest use to the weakest.

"would train on": the document is in the tokens of a run that has no model yet. "trained or validated on": the side of
the document is not recorded. "not known": the tokens of the run were deleted, or the training started, directly or
indirectly, from the model of a run that is not in the lake.
"""
_STRONGEST: Sequence[Saw] = get_args(Saw)


@dataclass(frozen=True)
class DocumentUse:
    """A model that was trained or validated on a document, or may have been."""

    run: Run
    """The run that trained the model, or would train it."""
    saw: Saw
    through: str = ""
    """The folder of the earlier run that used the document. Training started from its model, directly or indirectly.

    If the run of an earlier model is not known, this is the URI of that model. Empty if no earlier run used the
    document more strongly than this run.
    """
    champion_of: tuple[str, ...] = ()
    """The pipelines whose champion this model is."""


def find_document_uses(lake: Lake, hashes: Sequence[int]) -> Iterator[DocumentUse]:
    """Yield a sighting for each model that used a document with one of `hashes`, or may have used one.

    The sightings are in the order of the runs' folders. The tokens of all runs are read once, which takes minutes for
    a large lake.
    """
    runs = {run.folder: run for run in all_runs(lake)}
    tokens = {folder: used_datasets(run).get("tokens", "") for folder, run in runs.items()}
    has_model = {folder: store.exists(join(run.model, MANIFEST)) for folder, run in runs.items()}
    runs = {folder: run for folder, run in runs.items() if has_model[folder] or tokens[folder]}
    found = {name: _find(lake, name, hashes) for name in sorted({tokens[folder] for folder in runs})}
    own = {
        folder: saw
        for folder, run in runs.items()
        if (saw := _own_use(run, found[tokens[folder]], has_model=has_model[folder]))
    }
    champions = _champions(lake)
    parents = {folder: _parent_of(run) for folder, run in runs.items() if has_model[folder]}
    for folder, run in sorted(runs.items()):
        earlier = [(each, own.get(each) if each in runs else "not known") for each in _ancestors(folder, parents)]
        seen = [("", own.get(folder)), *earlier]
        known = [(_STRONGEST.index(saw), through) for through, saw in seen if saw]
        if known:
            strength, through = min(known, key=lambda each: each[0])  # of equally strong ones, the nearest run
            yield DocumentUse(run, _STRONGEST[strength], through, tuple(champions.get(folder, ())))


def _find(lake: Lake, tokens: str, hashes: Sequence[int]) -> Keys | None:
    """Return those of `hashes` that belong to documents of the dataset with the fingerprint `tokens`.

    Return None if the lake does not have this dataset.
    """
    dataset = TokensDataset.find(lake, tokens) if tokens else None
    if dataset is None:
        return None
    wanted = np.array(hashes, np.uint64)
    parts = [np.intersect1d(wanted, TokenShard.open(dataset.uri, entry).hash) for entry in dataset.shards]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))


def _own_use(run: Run, found: Keys | None, *, has_model: bool) -> Saw | None:
    """Return how a run itself used the wanted documents. Return None if the run did not use any of these documents.

    Documents that only an earlier model has used do not count. `found` has the hashes of the documents that are in the
    run's tokens. It is None if the tokens were deleted.
    """
    if found is None:
        return "not known" if has_model else None
    if not len(found):
        return None
    if not has_model:
        return "would train on"
    decisions = read_decisions(Pipeline.of(run)) if _has_fixed_split(run) else None
    # In earlier versions, runs without Airflow followed the decisions of the pipeline `default`.
    if decisions is None or not decisions.files:
        return "trained or validated on"
    sides = decisions.sides_of(found)
    if (sides == TRAIN).any():
        return "trained on"
    return "validated on" if (sides == VALID).any() else None


def _has_fixed_split(run: Run) -> bool:
    try:
        with reading(run.config, "restore it from a copy"):
            return bool(get(store.read_json(run.config), "windows.split") == "fixed")
    except FileNotFoundError:
        return False


def _parent_of(run: Run) -> str:
    """Return the folder of the earlier run whose model the training of `run` started from.

    If it is not known which run trained that model, return the model's URI. Return "" if `run` started from random
    weights.
    """
    lineage = read_lineage(run.model)
    if lineage is None:
        return parent_of(run)
    return (lineage.start.run or lineage.start.uri) if lineage.start else ""


def _ancestors(folder: str, parents: Mapping[str, str]) -> Iterator[str]:
    seen = {folder}
    while (folder := parents.get(folder, "")) and folder not in seen:
        seen.add(folder)
        yield folder


def _champions(lake: Lake) -> dict[str, list[str]]:
    """Return a dict whose keys are the folders of the runs that trained champions.

    The values are the names of the pipelines whose champion the run trained.
    """
    found: dict[str, list[str]] = {}
    for pipeline in all_pipelines(lake):
        champion, _ = read_champion(pipeline)
        if champion is not None:
            found.setdefault(champion.run_folder, []).append(pipeline.name)
    return found
