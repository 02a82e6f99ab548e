"""Finds the runs of a lake: all of them, or the runs that a user means by a name.

In the earlier layout, that of version 0.1, the folder of a run was ``runs/<run id>`` for all projects and DAGs. Such
runs stay readable, and a run that is continued keeps its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from jobs.errors import InputError, NightjarError, did_you_mean, reading
from jobs.lake.identity import decode_name, encode_name
from jobs.lake.layout import Lake, Run
from jobs.lake.names import is_plain
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import base_name, join

_IN_EARLIER_RUN = frozenset({"generate", "model", "progress", "stats", "steps", "train"})
"""Names of the folders in a run of the earlier layout. In the current layout, folders at this depth are pipelines."""


def all_runs(lake: Lake, store: Store = ENVIRONMENT) -> Iterator[Run]:
    """Yield a run for each run folder in the lake. The run may be incomplete."""
    for project in store.list_folders(lake.runs):
        earlier = Run(lake.uri, project)
        if is_earlier := store.exists(earlier.config):
            yield earlier
        for pipeline in store.list_folders(join(lake.runs, project)):
            if not (is_earlier and pipeline in _IN_EARLIER_RUN):
                folders = store.list_folders(join(lake.runs, project, pipeline))
                yield from (Run(lake.uri, f"{project}/{pipeline}/{folder}") for folder in folders)


def runs_beside(run: Run, store: Store = ENVIRONMENT) -> Iterator[Run]:
    """Yield the other runs of the pipeline of `run`. They may be incomplete, and even lack a configuration."""
    pipeline, own = run.uri.rpartition("/")[0], base_name(run.uri)
    parent = run.folder.rpartition("/")[0]
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in store.list_folders(pipeline):
            if name != own:
                yield Run(run.lake_uri, f"{parent}/{name}" if parent else name)


def runs_named(name: str, lake: Lake, store: Store = ENVIRONMENT) -> list[Run]:
    """Return the runs that a user may mean by `name`, whether they exist or not.

    A name is a run id, ``pipeline/run id`` or ``project/pipeline/run id``. Each part may also be written as the name of
    its folder, as in ``lab/train_llm/2026-11-26T03=3A00``.

    Raises:
        InputError: if permissions do not allow listing the runs.
    """
    if not name or name.startswith(("/", ".")):
        return []
    found, folders = [lake.earlier_run(name)], list[str]()
    with suppress(FileNotFoundError, NotADirectoryError):  # no lake yet
        try:
            folders = store.list_folders(lake.runs)
        except PermissionError as error:
            raise InputError(f"{lake.runs}: cannot be listed ({error.strerror}); check --lake") from None
    for project in folders:
        for pipeline in store.list_folders(join(lake.runs, project)):
            starts = {"", *(f"{each}/" for each in (pipeline, decode_name(pipeline)))}
            starts |= {f"{project}/{start}" for start in starts if start}
            rests = {name.removeprefix(start) for start in starts if name.startswith(start)} - {""}
            names = {encode_name(rest) for rest in rests}
            names |= {rest for rest in rests if is_plain(rest) and "/" not in rest}
            found += [Run(lake.uri, f"{project}/{pipeline}/{each}") for each in sorted(names)]
    return found


def find_run(name: str, lake: Lake, store: Store = ENVIRONMENT, *, is_started: bool = True) -> Run:
    """Return the one run that a user means by `name` (see `runs_named`). Runs without a configuration do not count.

    With ``is_started=False``, also find a run whose first task failed before it wrote the configuration.

    Raises:
        InputError: if there is no such run, or more than one.
    """
    named = runs_named(name, lake, store)
    found = {run.folder: run for run in named if store.exists(run.config)}
    if not found and not is_started:
        found = {run.folder: run for run in named if run.project and store.is_folder(run.uri)}
    if not found:
        near = did_you_mean(name, names_of_runs(lake, store))
        raise InputError(
            f"{lake.uri}: has no run {name!r}{near or '; check the name and --lake'};"
            " run nightjar runs list to see all runs"
        )
    return only_one(name, found.values())


def names_of_runs(lake: Lake, store: Store = ENVIRONMENT) -> list[str]:
    """Return all names by which `runs_named` finds runs of a lake. Return [] if the lake cannot be listed."""
    with suppress(OSError, NightjarError):
        folders = [run.folder.split("/") for run in all_runs(lake, store)]
        return [
            "/".join(decode_name(part) for part in parts[start:]) for parts in folders for start in range(len(parts))
        ]
    return []


def only_one(name: str, runs: Iterable[Run]) -> Run:
    """Return the only run in `runs`, the runs with the name `name`. Raise InputError if there are several."""
    first, *others = dict.fromkeys(runs)
    if others:
        folders = ", ".join(run.folder for run in (first, *others))
        raise InputError(f"{name}: several runs have this name; give one of {folders}")
    return first


def located(run: Run, earlier: Run, store: Store = ENVIRONMENT) -> Run:
    """Return `run`. If the lake has this run only in the earlier layout, as `earlier`, return `earlier` instead."""
    return earlier if not store.exists(run.config) and store.exists(earlier.config) else run


def used_datasets(run: Run, store: Store = ENVIRONMENT) -> dict[str, str]:
    """Return the datasets that a run has used so far: a dict from a kind, such as ``tokens``, to a fingerprint."""
    try:
        datasets = store.read_json(run.datasets)
    except FileNotFoundError:
        return {}
    with reading(run.datasets, "delete it and run the steps again"):
        return {str(kind): _fingerprint(name) for kind, name in datasets.items()}


def _fingerprint(name: str) -> str:
    """Return `name`; raise ValueError if it cannot be the fingerprint of a dataset."""
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"{name!r} is not a fingerprint")
    return name
