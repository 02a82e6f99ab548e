"""Garbage collection: finds and deletes what no run, champion or pipeline of a lake needs.

It keeps the current and earlier champions, the runs that trained them, the latest runs of each pipeline and the runs in
progress, with everything that these runs need. It also keeps recently changed folders, since a run may be about to use
them. A folder's manifest is deleted first: without it, readers treat the folder as missing. After a crash, the next
collection deletes the rest of the folder.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, Literal

from jobs.errors import reading
from jobs.lake.champion import all_pipelines, read_champion, utc_now
from jobs.lake.files import FileInfo
from jobs.lake.identity import encode_name
from jobs.lake.layout import MANIFEST, Lake, Pipeline, Run
from jobs.lake.lock import is_held
from jobs.lake.models import parent_of
from jobs.lake.runs import all_runs
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import to_json
from jobs.lake.uri import join, relative_name

Kind = Literal["run", "checkpoints", "dataset", "model", "evaluation set", "package", "logs"]
DAY_SECONDS = 86_400.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Garbage:
    """A folder that can be deleted, and why."""

    kind: Kind
    uri: str
    num_files: int
    num_bytes: int
    why: str


@dataclass(frozen=True)
class _Known:
    """A run that exists in the lake, with its files."""

    run: Run
    files: tuple[FileInfo, ...]
    is_working: bool
    """Whether a program holds the run's lock."""

    @property
    def started_at(self) -> float:
        """Time of the run's oldest file, in seconds since 1970."""
        return min((file.modified_at for file in self.files), default=0.0)

    @property
    def changed_at(self) -> float:
        """Time of the last change of any file of the run, in seconds since 1970."""
        return max((file.modified_at for file in self.files), default=0.0)

    @property
    def is_trained(self) -> bool:
        return any(file.uri == join(self.run.train, MANIFEST) for file in self.files)

    @property
    def pipeline(self) -> str:
        return self.run.folder.rpartition("/")[0]


def find_garbage(
    lake: Lake, now: float, *, keep_runs: int | None = None, min_days: float = 2.0, store: Store = ENVIRONMENT
) -> list[Garbage]:
    """Return what can be deleted: first the runs, then the folders that no remaining run uses.

    Args:
        lake: The lake.
        now: The current time, in seconds since 1970.
        keep_runs: How many runs of each pipeline to keep, the latest ones. By default, all runs are kept.
        min_days: Folders that changed in the last `min_days` days stay.
        store: The store of the lake.

    Raises:
        DamagedError: if a file is damaged that is needed to find what is in use. Repair this file first.
    """
    oldest = now - min_days * DAY_SECONDS
    runs = [_look(run, now, store) for run in all_runs(lake, store)]
    promoted_runs, promoted_models = _promoted(lake, store)
    kept = {each.run.folder for each in _to_keep(runs, keep_runs, promoted_runs, oldest)}
    kept = _with_parents(runs, kept, store)
    found = [_of_run(each) for each in runs if each.run.folder not in kept]
    remaining = [each for each in runs if each.run.folder in kept]
    found += _checkpoints(remaining, oldest)
    used = {dataset for each in remaining for dataset in _datasets_of(each.run, store)}
    found += _unused(join(lake.uri, "datasets"), 2, used, "dataset", "no run uses it", oldest, store)
    found += _unused(lake.models, 1, promoted_models, "model", "no pipeline had it as champion", oldest, store)
    found += (each for pipeline in all_pipelines(lake, store) for each in _evaluation_sets(pipeline, oldest, store))
    clusters = {cluster for each in remaining for cluster in _clusters_of(each, store)}
    found += _unused(lake.logs, 1, clusters, "logs", "its cluster belongs to no run", oldest, store)
    packages = _unused(join(lake.uri, "packages"), 1, set(), "package", "a later package is in use", oldest, store)
    if not any(each.is_working for each in runs):
        found += _all_but_latest(packages, join(lake.uri, "packages"), store)
    return found


def delete_garbage(lake: Lake, found: Iterable[Garbage], by: str, store: Store = ENVIRONMENT) -> Iterator[Garbage]:
    """Delete garbage, and yield each folder after it is deleted. Write a record of the deletions to `Lake.audit`.

    The record is written before the first deletion, so that an interrupted collection is recorded as well.
    """
    chosen = list(found)
    uri = join(lake.audit, f"{encode_name(utc_now())}-gc-{uuid.uuid4().hex[:8]}.json")
    store.publish(uri, to_json({"by": by, "action": "gc", "deleted": [asdict(each) for each in chosen]}, uri))
    for each in chosen:
        for manifest in _manifests_of(each):
            store.delete_file(manifest)
        store.delete_folder(each.uri)
        log.info("deleted %s (%s)", each.uri, each.why)
        yield each


def _manifests_of(garbage: Garbage) -> list[str]:
    """Return the manifests by which readers find a folder or parts of it. They are to be deleted first."""
    if garbage.kind == "run":
        return [join(garbage.uri, name, MANIFEST) for name in ("score", "evaluate", "generate", "model", "train")]
    return [join(garbage.uri, MANIFEST)] if garbage.kind in ("dataset", "model", "evaluation set", "package") else []


def _look(run: Run, now: float, store: Store) -> _Known:
    files = tuple(store.list_files(run.uri))
    return _Known(run, files, is_held(run, now, store))


def _promoted(lake: Lake, store: Store) -> tuple[set[str], set[str]]:
    """Return the folders of the runs that trained the current and earlier champions, and the names of their models."""
    runs, models = set[str](), set[str]()
    for pipeline in all_pipelines(lake, store):
        champion, _ = read_champion(pipeline, store)
        if champion is not None:
            models |= {champion.model, *(each.model for each in champion.history)}
            runs |= {each.run for each in champion.history} | {champion.run_folder}
    return runs, models


def _to_keep(runs: Iterable[_Known], keep_runs: int | None, promoted: set[str], oldest: float) -> Iterator[_Known]:
    by_pipeline: dict[str, list[_Known]] = {}
    for each in sorted(runs, key=attrgetter("started_at"), reverse=True):
        of_pipeline = by_pipeline.setdefault(each.pipeline, [])
        of_pipeline.append(each)
        is_among_latest = keep_runs is None or len(of_pipeline) <= keep_runs
        is_promoted = each.run.folder in promoted or each.run.run_id in promoted
        if is_among_latest or is_promoted or each.is_working or each.changed_at > oldest:
            yield each


def _with_parents(runs: Iterable[_Known], kept: set[str], store: Store) -> set[str]:
    """Return the run folders in `kept`, and the folders of all runs on which these runs depend.

    A run depends on the run whose model it started from or used, and on the runs on which that run depends.
    """
    known = {each.run.folder: each.run for each in runs}
    pending, found = list(kept), set(kept)
    while pending:
        parent = parent_of(known[pending.pop()], store)
        if parent in known and parent not in found:
            found.add(parent)
            pending.append(parent)
    return found


def _of_run(known: _Known) -> Garbage:
    num_bytes = sum(file.size for file in known.files)
    return Garbage("run", known.run.uri, len(known.files), num_bytes, "its pipeline has enough later runs")


def _checkpoints(runs: Iterable[_Known], oldest: float) -> Iterator[Garbage]:
    """Yield the checkpoints of runs whose training is complete and that have not changed since `oldest`."""
    for known in runs:
        inside = [file for file in known.files if file.uri.startswith(f"{known.run.checkpoints}/")]
        if inside and known.is_trained and not known.is_working and known.changed_at <= oldest:
            num_bytes = sum(file.size for file in inside)
            yield Garbage("checkpoints", known.run.checkpoints, len(inside), num_bytes, "its training is complete")


def _datasets_of(run: Run, store: Store) -> Iterator[str]:
    """Yield the folders of a run's datasets, relative to the lake's folder ``datasets``."""
    try:
        with reading(run.datasets, "delete the run, or delete this file and run the steps again"):
            values = json.loads(store.read_bytes(run.datasets))
            yield from (f"{kind}/{name}" for kind, name in values.items())
    except FileNotFoundError:
        return


def _evaluation_sets(pipeline: Pipeline, oldest: float, store: Store) -> list[Garbage]:
    """Return the earlier versions of a pipeline's evaluation set, of which only the latest version is used."""
    names = store.list_folders(pipeline.frozen)
    versions = [name for name in names if store.exists(join(pipeline.frozen, name, MANIFEST))]
    why = "a later version is in use"
    return _unused(pipeline.frozen, 1, {max(versions, default="")}, "evaluation set", why, oldest, store)


def _clusters_of(known: _Known, store: Store) -> Iterator[str]:
    for file in known.files:
        if file.uri.startswith(f"{known.run.clusters}/"):
            with reading(file.uri, "delete the run"):
                values: Mapping[str, Any] = json.loads(store.read_bytes(file.uri))
                yield str(values.get("cluster_id"))


def _unused(
    folder: str, depth: int, used: set[str], kind: Kind, why: str, oldest: float, store: Store
) -> list[Garbage]:
    """Return the folders `depth` levels below `folder` that are not in `used` and have not changed since `oldest`.

    `used` has the names of folders relative to `folder`. `kind` and `why` describe the garbage.
    """
    files: dict[str, list[FileInfo]] = {}
    for file in store.list_files(folder):
        names = relative_name(file.uri, folder).split("/")
        if len(names) > depth:  # else it is a file beside the folders, such as `Lake.earlier_champion`
            files.setdefault("/".join(names[:depth]), []).append(file)
    return [
        Garbage(kind, join(folder, name), len(inside), sum(file.size for file in inside), why)
        for name, inside in sorted(files.items())
        if name not in used and max(file.modified_at for file in inside) <= oldest
    ]


def _all_but_latest(packages: list[Garbage], folder: str, store: Store) -> list[Garbage]:
    """Return `packages` without the latest upload, which the next run uses unless the code has changed."""
    latest = max(store.list_files(folder), key=attrgetter("modified_at"), default=None)
    return [each for each in packages if latest is None or not latest.uri.startswith(f"{each.uri}/")]
