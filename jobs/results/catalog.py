"""The list of a lake's runs, sorted, filtered and divided into pages. It is made from cached summaries.

A summary is read again when its run changes. To show a page, only some runs are checked for changes: those on the page,
running runs, and the latest failed or unfinished runs. So a page of a large lake in S3 takes few requests. The cached
summaries are in memory and, for the next process, in a file in this user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.errors import InputError, NightjarError
from jobs.lake.cache import own_cache_folder
from jobs.lake.champion import Champion, all_pipelines, read_champion
from jobs.lake.layout import Lake, Run
from jobs.lake.runs import all_runs
from jobs.lake.store import ENVIRONMENT, Store
from jobs.results import SortKey
from jobs.results.summary import Status, StepSummary, Summary, read_summary, versions_of

MAX_RUNS = 20_000
"""Maximum number of cached summaries, of about 2 KB each. If there are more runs, older ones are read for each page."""
_FORMAT = 4
"""Version of the cache file's format. Increase it when a field of `Summary` is added or changes its meaning."""
_MOST_OPEN = 100
"""For each page, this many of the latest failed or unfinished runs are checked for changes.

They are checked even if a filter hides them, since their state may have changed.
"""
_READERS = 16
"""Maximum number of runs that are read at the same time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """Which runs to list, and in which order."""

    search: str = ""
    """Words that must all occur in a run's names, state, preset, corpus, used model or cause of failure."""
    statuses: frozenset[Status] = frozenset(Status)
    sort: SortKey = "started"
    descending: bool = True
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True)
class Page:
    """A part of the list of runs."""

    runs: tuple[Summary, ...]
    total: int
    """Number of runs that the query matches, on all pages."""
    champions: tuple[Champion, ...] = ()
    """The champions of all pipelines."""

    def is_champion(self, summary: Summary) -> bool:
        """Return whether the model of this run is a champion."""
        return any(_is_of(champion, summary) for champion in self.champions)


class Catalog:
    """The summaries of all runs of a lake.

    Args:
        lake: The lake.
        store: The store of the lake.
        file: File in which summaries are kept for the next process. By default, a file in this user's cache folder.
    """

    def __init__(self, lake: Lake, store: Store = ENVIRONMENT, file: Path | None = None) -> None:
        self._lake = lake
        self._store = store
        self._file = file or _default_file(lake)
        self._known: dict[str, Summary] = _load(self._file, lake)

    def page(self, query: Query = Query()) -> Page:
        """Return a page of the list. The summaries on it are up to date."""
        before = dict(self._known)
        runs = {run.folder: run for run in all_runs(self._lake, self._store)}
        self._known = {folder: summary for folder, summary in self._known.items() if folder in runs}
        self._read(run for folder, run in runs.items() if folder not in self._known)
        latest = sorted(self._known.items(), key=_age)
        self._read(runs[folder] for folder, each in latest if each.status is Status.RUNNING)
        open_runs = [runs[folder] for folder, each in latest if each.status in (Status.FAILED, Status.UNFINISHED)]
        self._read(self._changed(open_runs[:_MOST_OPEN]))
        shown = self._select(query)[0]
        self._read(self._changed(runs[each.folder] for each in shown))
        shown, total = self._select(query)
        page = Page(tuple(shown), total, self._champions())
        self._known = dict(sorted(self._known.items(), key=_age)[:MAX_RUNS])
        if self._known != before or _versions(self._known) != _versions(before):
            self._save()
        return page

    def _select(self, query: Query) -> tuple[list[Summary], int]:
        words = query.search.casefold().split()
        found = (each for each in self._known.values() if each.status in query.statuses and _has_words(each, words))
        ordered = sorted(found, key=lambda each: each.folder)
        known = [each for each in ordered if getattr(each, query.sort) is not None]
        known.sort(key=lambda each: getattr(each, query.sort), reverse=query.descending)
        # Runs without a value come last in both directions.
        ordered = [*known, *(each for each in ordered if getattr(each, query.sort) is None)]
        return ordered[query.offset : query.offset + query.limit], len(ordered)

    def _changed(self, runs: Iterable[Run]) -> Iterable[Run]:
        chosen = list(runs)
        versions = self._map(lambda run: versions_of(run, self._store), chosen)
        return [
            run for run, version in zip(chosen, versions, strict=True) if version != self._known[run.folder].versions
        ]

    def _read(self, runs: Iterable[Run]) -> None:
        chosen = list(runs)
        for summary in self._map(lambda run: read_summary(run, self._store), chosen):
            self._known[summary.folder] = summary

    def _map(self, function: Callable[[Run], Any], runs: list[Run]) -> list[Any]:
        if len(runs) < 2:
            return list(map(function, runs))
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(function, runs))

    def _champions(self) -> tuple[Champion, ...]:
        found = []
        for pipeline in all_pipelines(self._lake, self._store):
            with suppress(NightjarError):
                found.append(read_champion(pipeline, self._store)[0])
        return tuple(filter(None, found))

    def _save(self) -> None:
        if self._file is None:
            return
        values = {"format": _FORMAT, "lake": self._lake.uri, "runs": [_values(each) for each in self._known.values()]}
        try:
            ENVIRONMENT.write_bytes(self._file.as_uri(), json.dumps(values).encode())
        except (OSError, NightjarError) as error:
            log.debug("%s: the summaries of runs are not kept (%s)", self._file, error)


def _is_of(champion: Champion, summary: Summary) -> bool:
    if champion.run:
        return champion.run == summary.folder
    return champion.run_id == summary.run_id and champion.metrics.get("bits_per_byte") == summary.bits_per_byte


def _default_file(lake: Lake) -> Path | None:
    with suppress(OSError, InputError):  # without a cache folder, no summaries are kept
        return own_cache_folder() / f"runs-{hashlib.sha256(lake.uri.encode()).hexdigest()[:16]}.json"
    return None


def _load(file: Path | None, lake: Lake) -> dict[str, Summary]:
    """Return a dict from run folders to the summaries in the cache file.

    Return {} if the file is missing or damaged, has another format version, or is of another lake.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        values = json.loads(file.read_bytes()) if file else {}
        if values.get("format") == _FORMAT and values.get("lake") == lake.uri:
            return {each["folder"]: _summary(each) for each in values["runs"]}
    return {}


def _values(summary: Summary) -> dict[str, Any]:
    """Return the fields of a summary to write to the cache file. None is left out: `_summary` restores it."""
    return asdict(summary, dict_factory=lambda items: {name: value for name, value in items if value is not None})


def _summary(values: Mapping[str, Any]) -> Summary:
    steps = (StepSummary(**{**step, "status": Status(step["status"])}) for step in values["steps"])
    versions = tuple(version and (version[0], version[1]) for version in values["versions"])
    instances = tuple((name, seconds) for name, seconds in values["instances"])
    summary = Summary(**{**values, "status": Status(values["status"])})
    return replace(summary, steps=tuple(steps), versions=versions, instances=instances)


def _versions(known: Mapping[str, Summary]) -> dict[str, Any]:
    return {folder: summary.versions for folder, summary in known.items()}


def _age(item: tuple[str, Summary]) -> float:
    return -(item[1].started or 0.0)


def _has_words(summary: Summary, words: Iterable[str]) -> bool:
    known = (summary.preset, summary.corpus, summary.used_model, summary.cause)
    texts = (summary.folder, summary.run_id, *known, summary.status)
    text = " ".join(filter(None, texts)).casefold()
    return all(word in text for word in words)
