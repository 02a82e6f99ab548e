"""Promotion: whether the model of a run becomes the champion. Airflow compares metrics and moves a pointer."""

from __future__ import annotations

import hashlib
import logging
import math
from typing import Any

from jobs.errors import DamagedError, NightjarError
from jobs.lake.champion import Champion, Change, change_champion, read_champion, utc_now
from jobs.lake.layout import MANIFEST, Lake, Pipeline, Run
from jobs.lake.names import below
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar import aws
from nightjar.tasks.results import read_stats, verify_folder

log = logging.getLogger(__name__)

MODEL_FILES = frozenset({"config.json", "model.safetensors", "tokenizer.json"})
JUDGED_METRICS = ("bits_per_byte", "valid_loss", "unigram_loss")
_MAX_RACES = 5


def promote(run: Run, by: str, store: Store | None = None) -> dict[str, Any]:
    """Copy the run's model to the promoted models and make it its pipeline's champion, unless that one is as good.

    Args:
        run: The run.
        by: Who or what promotes it, for the history.
        store: The store of the lake.

    Returns:
        ``{"promoted": bool, "why": one line, "model": hash or None}``. A model that is not better is no error.
    """
    store, pipeline = store or aws.store(), Pipeline.of(run)
    stats = read_stats(run, store)
    reason, model = _reason_against(stats), None
    for _ in range(_MAX_RACES):
        champion, version = read_champion(pipeline, store)
        reason = reason or _reason_to_keep(champion, pipeline, stats)
        if reason:
            return _decision(False, reason, None)
        model = model or _copy_model(run, store)
        before = f"before: {champion.metrics['bits_per_byte']:.4f}" if champion else "the first champion"
        why = f"{stats['bits_per_byte']:.4f} bits per byte, {before}"
        metrics = {name: stats[name] for name in JUDGED_METRICS}
        change = Change("promoted", model, run.folder, utc_now(), by, why, metrics)
        if change_champion(pipeline, champion, version, change, store):
            return _decision(True, why, model)
    raise NightjarError(f"{pipeline.champion}: other runs replaced it {_MAX_RACES} times in a row; clear this task")


def _reason_against(stats: dict[str, Any]) -> str:
    """Return why a model with these statistics may not be the champion, or an empty text."""
    for name in JUDGED_METRICS:
        if not isinstance(stats.get(name), int | float) or not math.isfinite(stats[name]):
            return f"{name} is {stats.get(name)}"
    if stats["valid_loss"] >= stats["unigram_loss"]:
        return "valid_loss {valid_loss:.4f} is not below the unigram baseline {unigram_loss:.4f}".format(**stats)
    return ""


def _reason_to_keep(champion: Champion | None, pipeline: Pipeline, stats: dict[str, Any]) -> str:
    """Return why the champion stays, or an empty text."""
    if champion is None:
        return ""
    best, new = champion.metrics.get("bits_per_byte"), stats["bits_per_byte"]
    if not isinstance(best, int | float) or not math.isfinite(best):
        raise DamagedError(
            f"{pipeline.champion}: bits_per_byte is {best}, not a number; delete the file and promote a run again"
        )
    if new < best:
        return ""
    return f"{new:.4f} bits per byte, not better than the {best:.4f} of champion {champion.run_id}"


def _decision(promoted: bool, why: str, model: str | None) -> dict[str, Any]:
    log.info("%s: %s", "Promoted" if promoted else "Not promoted", why)
    return {"promoted": promoted, "why": why, "model": model}


def _copy_model(run: Run, store: Store) -> str:
    """Copy the model to a folder named by its content, and return that name. The manifest is copied last."""
    lake = Lake(run.lake_uri)
    entries = verify_folder(run.model, store).files
    if missing := MODEL_FILES - {entry.name for entry in entries}:
        raise DamagedError(f"{run.model}: no {', '.join(sorted(missing))} in its manifest")
    lines = sorted(f"{entry.sha256} {entry.name}\n" for entry in entries)
    model = hashlib.sha256("".join(lines).encode()).hexdigest()
    for name in (*(entry.name for entry in entries), MANIFEST):
        store.copy(below(run.model, name), below(join(lake.models, model), name))
    return model
