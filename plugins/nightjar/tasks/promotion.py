"""Promotion: decide whether the model of a run becomes the champion of its pipeline.

The step `score` has measured the model and the champion on the same documents. The decision and its numbers are kept in
the run's folder, even if the previous champion stays.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from typing import Any

from jobs.config import SCORE, Config
from jobs.config.sections.promotion import PromotionConfig
from jobs.errors import DamagedError, NightjarError, reading
from jobs.lake.champion import Champion, Change, change_champion, copy_model, read_champion, utc_now
from jobs.lake.layout import Pipeline, Run
from jobs.lake.store import Store
from jobs.lake.strict_json import finite
from jobs.metrics.columns import BASELINE_LOSSES
from jobs.results import gate
from jobs.results.scores import NATS, Scores, read_scores
from nightjar import aws
from nightjar.tasks.report import write_report
from nightjar.tasks.results import read_stats

log = logging.getLogger(__name__)


def promote(run: Run, by: str, config: Config, *, request: str = "", store: Store | None = None) -> dict[str, Any]:
    """Make the run's model the champion of its pipeline if the model is better than the current champion.

    The model is first copied to `Lake.models`, the folder of the promoted models. The model of a run without
    the step `score` can only become the first champion of its pipeline.

    Args:
        run: The run.
        by: Who or what promotes the model, for the history of the champion.
        config: The run's configuration.
        request: An id of this promotion. If the last change of the champion has the same id, nothing is changed.
        store: The store of the lake.

    Returns:
        The decision: ``{"promoted": bool, "why": one line, "model": hash or None, ...}`` with the numbers of the gate.
        A model that is not better is not an error.
    """
    store, pipeline, settings = store or aws.store(), Pipeline.of(run), config.promotion
    stats, scores = read_stats(run, store), _read_scores(run, config, store)
    champion, version = read_champion(pipeline, store)
    if request and champion and champion.history and champion.history[-1].request == request:
        return _decided(run, store, promoted=True, why=champion.history[-1].why, model=champion.model)
    gain = gate.measure_gain(scores, settings.error_rate) if _is_finite(scores) else None
    numbers = {"gain": asdict(gain) if gain else None, "evaluation_set": scores.evaluation_set}
    text = _measure_text(run, settings, store)
    reason = gate.why_unfit(scores, text, _baselines(stats, settings), settings)
    reason = reason or _reason_to_keep(champion, scores, gain, config, run)
    if reason:
        return _decided(run, store, promoted=False, why=reason, model=None, **numbers)
    bits = scores.bits_per_byte or stats.get("bits_per_byte")
    model, why = copy_model(run, store), _why(bits, gain)
    metrics = finite({"bits_per_byte": bits, "valid_loss": stats.get("valid_loss"), **numbers})
    change = Change("promoted", model, run.folder, utc_now(), by, why, metrics, request)
    if not change_champion(pipeline, champion, version, change, store):
        raise NightjarError(f"{pipeline.champion}: another program changed it in the meantime; clear this task")
    return _decided(run, store, promoted=True, why=why, model=model, **numbers)


def _read_scores(run: Run, config: Config, store: Store) -> Scores:
    """Return the scores of the run's model.

    If the run has no step `score`, return a `Scores` object without documents. Its field `not_compared` says why the
    model was not compared with the champion.
    """
    model = store.read_manifest(run.model)
    if SCORE not in config.steps:
        why = (
            f"it cannot be compared with the champion: windows.split={config.windows.split} divides the text of each"
            " run anew, so one model may have trained on the validation text of the other; set windows.split=fixed in"
            " all runs of the pipeline"
        )
        return Scores(model.fingerprint if model else "", None, "", NATS, (), why)
    scores = read_scores(run, store)
    if scores is None or not scores.documents:
        raise NightjarError(f"{run.score}: has no scores of documents; clear the task score")
    if model is None or model.fingerprint != scores.model:
        raise DamagedError(f"{run.score}: has the scores of another model than {run.model}; clear the task score")
    return scores


def _is_finite(scores: Scores) -> bool:
    return all(each.challenger is not None and math.isfinite(each.challenger) for each in scores.documents)


def _measure_text(run: Run, settings: PromotionConfig, store: Store) -> gate.TextQuality:
    try:
        data = store.read_bytes(run.samples)
    except FileNotFoundError:
        raise DamagedError(f"{run.samples}: missing; clear the task generate") from None
    with reading(run.samples, "clear the task generate"):
        rows = [json.loads(line) for line in data.splitlines()]
        return gate.measure_text(rows, settings.canaries, settings.max_repetition)


def _baselines(stats: dict[str, Any], settings: PromotionConfig) -> dict[str, tuple[float, float]]:
    """Return the baselines to beat: a dict from a baseline's name to the model's loss and the baseline's loss."""
    loss = stats.get("valid_loss")
    left_out = {"bigram"} if settings.baseline == "unigram" else set()
    return {
        label: (math.nan if loss is None else loss, stats[name])
        for name, label in BASELINE_LOSSES.items()
        if stats.get(name) is not None and label not in left_out
    }


def _reason_to_keep(champion: Champion | None, scores: Scores, gain: gate.Gain | None, config: Config, run: Run) -> str:
    """Return why the current champion stays, or "" if the run's model may replace it."""
    if champion is None:
        return ""
    if scores.not_compared:
        return f"{scores.not_compared}; to make it the champion anyway, run nightjar champion promote {run.folder}"
    if champion.model != scores.champion:
        compared = f"with {scores.champion[:12]}" if scores.champion else "with no champion"
        return (
            f"the champion is now {champion.model[:12]}, but this model was compared {compared}; clear the task score"
            " to compare them"
        )
    return gate.why_champion_stays(scores, gain, config.promotion)


def _why(bits_per_byte: float | None, gain: gate.Gain | None) -> str:
    found = f"{bits_per_byte:.4f} bits per byte" if bits_per_byte is not None else "passed the gate"
    if gain is None:
        return f"{found}, the first champion"
    return f"{found}, {gain.value:.2%} below the previous champion (at least {gain.lower:.2%})"


def _decided(run: Run, store: Store, *, promoted: bool, why: str, model: str | None, **numbers: Any) -> dict[str, Any]:
    """Log the decision, write it to the run's folder and report, and return it."""
    log.info("%s: %s", "Promoted" if promoted else "Not promoted", why)
    decision: dict[str, Any] = finite({"promoted": promoted, "why": why, "model": model, **numbers})
    store.write_json(run.promotion, {**decision, "time": utc_now()})
    write_report(run, store)
    return decision
