"""The champion: which of the promoted models is in use. Airflow compares numbers and moves a pointer."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from typing import Any

from jobs.errors import DamagedError, NightjarError
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.uri import join
from nightjar.storage import Storage, open_storage
from nightjar.tasks.manifests import verify
from nightjar.tasks.results import read_stats

log = logging.getLogger(__name__)

MODEL_FILES = frozenset({"config.json", "model.safetensors", "tokenizer.json"})
_RACES = 5


def promote(run: Run) -> dict[str, Any]:
    """Copy the run's model to the promoted ones and make it champion, if it is fit to be and better.

    Returns:
        ``{"promoted": bool, "why": one line, "model": hash or None}``. That a model is not better is no error.
    """
    stats = read_stats(run)
    if doubt := _doubt(stats):
        return _decided(False, doubt, None)
    storage, lake = open_storage(run.uri), Lake(run.lake_uri)
    for _ in range(_RACES):
        champion, version = _read_champion(storage, lake)
        if champion and stats["bits_per_byte"] >= champion["bits_per_byte"]:
            why = "{:.4f} bits per byte, not better than the {:.4f} of champion {}".format(
                stats["bits_per_byte"], champion["bits_per_byte"], champion["run_id"]
            )
            return _decided(False, why, None)
        model = _copy_model(storage, run, lake)
        pointer = json.dumps(_pointer(model, run, stats), indent=2).encode() + b"\n"
        moved = storage.swap(lake.champion, pointer, version) if version else storage.publish(lake.champion, pointer)
        if moved:
            before = f"before: {champion['bits_per_byte']:.4f}" if champion else "the first champion"
            return _decided(True, f"{stats['bits_per_byte']:.4f} bits per byte, {before}", model)
    raise NightjarError(f"{lake.champion}: moved by others {_RACES} times in a row; try again")


def _doubt(stats: dict[str, Any]) -> str:
    """Why a model with these statistics may not be champion; empty if it may."""
    for key in ("valid_loss", "unigram_loss", "bits_per_byte"):
        if not isinstance(stats.get(key), int | float) or not math.isfinite(stats[key]):
            return f"{key} is {stats.get(key)}"
    if stats["valid_loss"] >= stats["unigram_loss"]:
        return "valid_loss {valid_loss:.4f} is not below the unigram baseline {unigram_loss:.4f}".format(**stats)
    return ""


def _decided(promoted: bool, why: str, model: str | None) -> dict[str, Any]:
    log.info("%s: %s", "Promoted" if promoted else "Not promoted", why)
    return {"promoted": promoted, "why": why, "model": model}


def _pointer(model: str, run: Run, stats: dict[str, Any]) -> dict[str, Any]:
    figures = {key: stats[key] for key in ("bits_per_byte", "valid_loss", "unigram_loss")}
    return {"model": model, "run_id": run.run_id, **figures}


def _read_champion(storage: Storage, lake: Lake) -> tuple[dict[str, Any] | None, str]:
    try:
        data, version = storage.read_version(lake.champion)
    except FileNotFoundError:
        return None, ""
    return json.loads(data), version


def _copy_model(storage: Storage, run: Run, lake: Lake) -> str:
    """Copy the model to a folder named by its content; return that name. The manifest is written last."""
    entries = verify(run.model, storage)["files"]
    if missing := MODEL_FILES - {entry["name"] for entry in entries}:
        raise DamagedError(f"{run.model}: no {', '.join(sorted(missing))} in its manifest")
    lines = sorted(f"{entry['sha256']} {entry['name']}\n" for entry in entries)
    model = hashlib.sha256("".join(lines).encode()).hexdigest()
    target = join(lake.models, model)
    for entry in entries:
        storage.copy(join(run.model, entry["name"]), join(target, entry["name"]))
    storage.write(join(target, MANIFEST), storage.read(join(run.model, MANIFEST)))
    return model
