"""The evaluate step: computes the loss of an existing model on each document of the run's text, without training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jobs.config import EVALUATE, Config
from jobs.corpus.check import read_corpus
from jobs.corpus.reading import NO_DOCUMENT
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.evaluation.documents import ScoredPart, divide, score_documents
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.manifest import Manifest
from jobs.lake.models import decide_used
from jobs.metrics.stats import EvaluateStats
from jobs.model.language_model import LossUnit
from jobs.model_io.folder import load_model


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Evaluate the model that the run uses, and return the statistics. Finished results for this model are reused.

    The whole corpus is checked before anything is written.
    """
    if config.use.model is None or EVALUATE not in config.steps:
        raise InputError("use.model: no model to evaluate; start a run with use.model and use.task=evaluate")
    model = decide_used(run, config.use.model)
    finished = store.read_manifest(run.evaluation)
    if finished is not None and finished.inputs["model"] == model.fingerprint:
        store.verify_sizes(run.evaluation, finished)
        progress("the losses of this model exist already")
        return finished.counts | {"reused": True}
    store.delete_folder(run.evaluation)
    started = time.perf_counter()
    loaded, _ = load_model(model.uri)
    unit, num_parameters = loaded.loss_unit, loaded.num_parameters
    del loaded
    settings = config.text_settings
    _, corpus = read_corpus(config.corpus, run.lake_uri, settings, engine, progress)
    parts = divide([checked.source for checked in corpus], settings)
    threads = engine.task_threads(len(parts))
    score = partial(score_documents, folder_uri=run.evaluation, model=model, settings=settings, threads=threads)
    scored = engine.map(score, parts, "evaluate")
    stats: EvaluateStats = {
        **model.to_stats(),
        **_summarize(scored, unit),
        "num_files": len(corpus),
        "num_parameters": num_parameters,
    }
    files = tuple(entry for part in scored for entry in part.files)
    inputs = {"model": model.fingerprint, "unit": unit}
    store.publish_manifest(run.evaluation, Manifest("losses", model.fingerprint, files, dict(stats), inputs))
    seconds = time.perf_counter() - started
    progress(f"{stats['num_documents']:,} documents, {describe_loss(stats)}")
    measured: EvaluateStats = {"evaluation_seconds": seconds, "bytes_per_second": stats["num_bytes"] / seconds}
    return {**stats, "reused": False, **measured}


def _summarize(scored: Sequence[ScoredPart], unit: LossUnit) -> EvaluateStats:
    """Return the statistics of all documents. The mean losses are None if the loss of a document is not finite."""
    counts = [entry.counts for part in scored for entry in part.files]
    num_bytes, loss = sum(each["bytes"] for each in counts), sum(part.loss for part in scored)
    if not num_bytes:
        raise InputError(NO_DOCUMENT)
    per_byte = loss / num_bytes if math.isfinite(loss) else None
    return {
        "num_documents": sum(each["documents"] for each in counts),
        "num_bytes": num_bytes,
        "loss_unit": unit,
        "text_loss_per_byte": per_byte,
        "text_bits_per_byte": per_byte / math.log(2) if per_byte is not None and unit == "nats" else None,
    }


def describe_loss(stats: EvaluateStats) -> str:
    """Format the loss on the whole text for a message: ``1.2345 bits per byte``."""
    if (bits := stats["text_bits_per_byte"]) is not None:
        return f"{bits:.4f} bits per byte"
    per_byte = stats["text_loss_per_byte"]
    return "a loss that is not finite" if per_byte is None else f"{per_byte:.4f} {stats['loss_unit']} per byte"
