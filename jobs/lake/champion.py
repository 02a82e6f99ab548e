"""The champion of a pipeline: the promoted model that is in use, and the history of changes that led to it.

The file `Pipeline.champion` has a pointer to the model and the history of all changes. Each change is one conditional
write, so the pointer and the history always agree. If two programs change the file at once, only one succeeds.

In the earlier layout of lakes (version 0.1), one file had the champion of all pipelines, without a history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from jobs.errors import DamagedError, InputError, NightjarError, did_you_mean
from jobs.lake.identity import DEFAULT, decode_name
from jobs.lake.layout import MANIFEST, Lake, Pipeline, Run
from jobs.lake.manifest import Manifest
from jobs.lake.names import below
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import to_json
from jobs.lake.uri import join

CHAMPION = "champion"
"""Users write this name for the champion of the pipeline `DEFAULT`, and ``champion:<pipeline>`` for other champions."""
MODEL_FILES = frozenset({"config.json", "model.safetensors", "tokenizer.json"})
"""The names of the files that every model has."""
Action = Literal["promoted", "rolled back"]


@dataclass(frozen=True)
class Change:
    """A change of the champion."""

    action: Action
    model: str
    """The name of the model's folder in `Lake.models`, which is a hash of the model's content."""
    run: str
    """The folder, below `Lake.runs`, of the run that trained the model. In the earlier layout, this is the run's id."""
    time: str
    """When the change was made, as an ISO 8601 time in UTC."""
    by: str
    """Who or what made the change, such as ``airflow: scheduled`` or ``airflow: ann``."""
    why: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The metrics by which the model was judged."""
    request: str = ""
    """An id of the request for this change, such as a DAG's id and its run's id. A repeated request changes nothing."""


@dataclass(frozen=True)
class Champion:
    """A promoted model: its folder, the run that trained it, its metrics, and the history of the champion."""

    model_uri: str
    run_id: str
    metrics: dict[str, Any]
    history: tuple[Change, ...] = ()
    """All changes of the pipeline's champion, from the oldest to the one that chose this model.

    The history is empty in the earlier layout.
    """

    @property
    def run(self) -> str:
        """The folder of the run that trained the model. It is "" in the earlier layout, which has only the run's id."""
        return self.history[-1].run if self.history else ""

    @property
    def run_folder(self) -> str:
        """The folder, below `Lake.runs`, of the run that trained the model. In the earlier layout, the run's id."""
        return self.run or self.run_id

    @property
    def model(self) -> str:
        """The name of the model's folder."""
        return self.model_uri.rpartition("/")[2]


def format_champion(model: str, run_id: str, metrics: Mapping[str, Any], history: tuple[Change, ...] = ()) -> bytes:
    """Return the content of a champion's file. `model` is the name of a folder in `Lake.models`."""
    values = {"model": model, "run_id": run_id, "metrics": dict(metrics), "history": [asdict(each) for each in history]}
    return to_json(values, f"champion {model}")


def change_champion(
    pipeline: Pipeline, before: Champion | None, version: str, change: Change, store: Store = ENVIRONMENT
) -> bool:
    """Change the champion and add the change to the history. Return False if another program changed it first.

    Args:
        pipeline: The pipeline.
        before: The champion before the change, as `read_champion` returned it.
        version: The version of the champion's file, as `read_champion` returned it.
        change: The change to make.
        store: The store of the lake.
    """
    history = (*_history_of(before), change)
    content = format_champion(change.model, _run_id(change.run), change.metrics, history)
    return store.replace(pipeline.champion, content, version) if version else store.publish(pipeline.champion, content)


def _history_of(champion: Champion | None) -> tuple[Change, ...]:
    """Return the changes that led to a champion. In the earlier layout, return one change with few details."""
    if champion is None or champion.history:
        return champion.history if champion else ()
    return (
        Change("promoted", champion.model, champion.run_id, "", "an earlier version", "not known", champion.metrics),
    )


def copy_model(run: Run, store: Store = ENVIRONMENT) -> str:
    """Copy a run's model to a folder of `Lake.models`, and return the folder's name, a hash of the content.

    The manifest is copied last.

    Raises:
        DamagedError: if the model is missing or not complete.
    """
    manifest = store.read_manifest(run.model)
    if manifest is None:
        raise DamagedError(
            f"{join(run.model, MANIFEST)}: missing; the run has no complete model, so continue the run first"
        )
    store.verify_sizes(run.model, manifest)
    check_model_files(run.model, manifest)
    model = model_name(manifest)
    for name in (*(entry.name for entry in manifest.files), MANIFEST):
        store.copy(below(run.model, name), below(join(Lake(run.lake_uri).models, model), name))
    return model


def check_model_files(uri: str, manifest: Manifest) -> None:
    """Raise DamagedError if the manifest of the model at `uri` lacks a file that every model has."""
    if missing := MODEL_FILES - {entry.name for entry in manifest.files}:
        raise DamagedError(
            f"{uri}: no {', '.join(sorted(missing))} in its manifest; restore the model, or use another one"
        )


def model_name(manifest: Manifest) -> str:
    """Return the name of a model's folder in `Lake.models`: the hash of its content."""
    lines = sorted(f"{entry.sha256} {entry.name}\n" for entry in manifest.files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def promote_by_hand(
    run: Run, pipeline: Pipeline, by: str, why: str, metrics: Mapping[str, Any], store: Store = ENVIRONMENT
) -> Change:
    """Make a run's model the champion of a pipeline without a comparison, and return the change."""
    champion, version = read_champion(pipeline, store)
    change = Change("promoted", copy_model(run, store), run.folder, utc_now(), by, why, metrics)
    if not change_champion(pipeline, champion, version, change, store):
        raise NightjarError(f"{pipeline.champion}: another program changed it in the meantime; check it and try again")
    return change


def roll_back(
    pipeline: Pipeline, by: str, why: str, to: str = "", *, request: str = "", store: Store = ENVIRONMENT
) -> Change:
    """Make an earlier champion the champion again, and return the change.

    Args:
        pipeline: The pipeline.
        by: Who rolls back, for the history.
        why: The reason, for the history.
        to: The beginning of the name of an earlier champion's model, or the id of the run that trained it. By
            default, the previous champion. Champions that a rollback has rejected do not count as previous ones.
        request: Identifies the request, if the caller may repeat it after an interruption.
        store: The store of the lake.

    Raises:
        InputError: if no earlier champion fits `to`, if several fit, or if the model of the chosen one was deleted.
    """
    champion, version = read_champion(pipeline, store)
    history = champion.history if champion else ()
    if request and history and history[-1].request == request:
        return history[-1]
    if to:
        earlier = {
            each.model: each
            for each in history
            if champion
            and each.model != champion.model
            and (each.model.startswith(to) or to in (each.run, _run_id(each.run)))
        }
    else:
        earlier = {each.model: each for each in _champions_in_order(history)[-2:-1]}
    if len(earlier) != 1:
        known = ", ".join(f"{each.model[:12]} (run {_run_id(each.run)})" for each in earlier.values())
        found = f"several earlier champions fit {to}: {known}" if earlier else "no earlier champion to go back to"
        raise InputError(f"{pipeline.champion}: {found}; run nightjar champion show {pipeline.name} to see the history")
    (chosen,) = earlier.values()
    model_uri = below(Lake(pipeline.lake_uri).models, chosen.model)
    manifest = store.read_manifest(model_uri)
    if manifest is None:
        raise InputError(f"{model_uri}: the model of run {_run_id(chosen.run)} was deleted; choose another champion")
    store.verify_sizes(model_uri, manifest)
    change = Change("rolled back", chosen.model, chosen.run, utc_now(), by, why, chosen.metrics, request)
    if not change_champion(pipeline, champion, version, change, store):
        raise NightjarError(f"{pipeline.champion}: another program changed it in the meantime; check it and try again")
    return change


def _champions_in_order(history: Iterable[Change]) -> list[Change]:
    """Return the champions, from the first to the current one. Leave out those that a rollback has rejected."""
    champions = list[Change]()
    for change in history:
        if change.action == "rolled back" and change.model in {each.model for each in champions}:
            while champions[-1].model != change.model:
                champions.pop()
        elif not champions or champions[-1].model != change.model:
            champions.append(change)
    return champions


def utc_now() -> str:
    """Return the current time as the history records it: ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _run_id(folder: str) -> str:
    return decode_name(folder.rpartition("/")[2])


def read_champion(pipeline: Pipeline, store: Store = ENVIRONMENT) -> tuple[Champion | None, str]:
    """Return a pipeline's champion, and the version of the champion's file for `Store.replace`.

    Return None and "" if there is no champion. If the pipeline `DEFAULT` has no file yet, return the champion of the
    earlier layout. The version is then "", since there is no file to replace.
    """
    try:
        data, version = store.read_version(pipeline.champion)
    except FileNotFoundError:
        return _read_earlier(pipeline, store), ""
    return _parse(data, pipeline, pipeline.champion), version


def _read_earlier(pipeline: Pipeline, store: Store) -> Champion | None:
    if pipeline.name != DEFAULT:
        return None
    uri = Lake(pipeline.lake_uri).earlier_champion
    try:
        return _parse(store.read_bytes(uri), pipeline, uri)
    except FileNotFoundError:
        return None


def _parse(data: bytes, pipeline: Pipeline, uri: str) -> Champion:
    try:
        values = json.loads(data)
        model_uri = below(Lake(pipeline.lake_uri).models, values.pop("model"))
        run_id = str(values.pop("run_id"))
        history = tuple(Change(**each) for each in values.pop("history", ()))
        metrics = dict(values.pop("metrics", values))  # the earlier layout has the metrics beside the other values
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedError(f"{uri}: does not name a model and its run; delete it and promote a run again") from None
    return Champion(model_uri, run_id, metrics, history)


def all_pipelines(lake: Lake, store: Store = ENVIRONMENT) -> list[Pipeline]:
    """Return the pipelines that have a folder in the lake, and in any case the pipeline `DEFAULT`."""
    names = {DEFAULT, *map(decode_name, store.list_folders(lake.pipelines))}
    return [lake.pipeline(name) for name in sorted(names)]


def no_champion_error(pipeline: Pipeline, remedy: str, store: Store = ENVIRONMENT) -> InputError:
    """Return the error to raise if a pipeline has no champion. Its message lists the pipelines that have one."""
    names = list[str]()
    with suppress(OSError, NightjarError):
        others = all_pipelines(Lake(pipeline.lake_uri), store)
        names = [each.name for each in others if read_champion(each, store)[0] is not None]
    known = f"; pipelines with a champion: {', '.join(names)}{did_you_mean(pipeline.name, names)}" if names else ""
    return InputError(f"{pipeline.champion}: no champion yet{known}; {remedy}")


def champions_pipeline(name: str, lake: Lake) -> Pipeline | None:
    """Return the pipeline to which ``champion`` or ``champion:<pipeline>`` refers. Return None for any other `name`."""
    kind, colon, pipeline = name.partition(":")
    if kind != CHAMPION:
        return None
    if colon and not pipeline:
        raise InputError(
            f"{name}: the pipeline is missing; write champion:<pipeline>, or only champion for the pipeline {DEFAULT}"
        )
    return lake.pipeline(pipeline or DEFAULT)
