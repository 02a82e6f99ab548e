"""The score step: computes the losses of the run's model and of the champion on the pipeline's evaluation set.

Promotion decides by these losses. The step runs only for runs that may promote and have ``windows.split=fixed``. Only
with this split is it certain that neither model was trained on the documents of the set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jobs.config import Config
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.errors import InputError, counted
from jobs.evaluation.frozen import FrozenSet, grow
from jobs.evaluation.losses import ScoredDocument, score_part
from jobs.evaluation.rivals import why_not_comparable
from jobs.lake import store
from jobs.lake.champion import Champion, read_champion
from jobs.lake.layout import Pipeline, Run
from jobs.lake.manifest import Manifest
from jobs.metrics.stats import ScoreStats
from jobs.model.language_model import LossUnit
from jobs.model_io.folder import load_model
from jobs.results.scores import SCORES, DocumentScore, format_scores


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Score the run's model and its pipeline's champion, and return the statistics. Finished scores are reused."""
    if config.windows.split != "fixed":
        raise InputError(
            f"windows.split={config.windows.split}: models are compared only if windows.split=fixed, since with other"
            " splits they may have been trained on the evaluation set; set windows.split=fixed"
        )
    model = store.read_manifest(run.model)
    if model is None:
        raise InputError(f"{run.model}: no model here; run the train step first")
    started = time.perf_counter()
    frozen = grow(run, config, TokensDataset.of_run(run), engine)
    champion, _ = read_champion(Pipeline.of(run))
    inputs: dict[str, Any] = {
        "model": model.fingerprint,
        "champion": champion.model if champion else None,
        "champion_run": champion.run if champion else None,  # another run may have trained the same model
        "evaluation_set": frozen.version,
    }
    finished = store.read_manifest(run.score)
    if finished is not None and inputs.items() <= finished.inputs.items():
        store.verify_sizes(run.score, finished)
        progress("the scores of this model exist already")
        return finished.counts | {"reused": True}
    store.delete_folder(run.score)
    unit, documents, obstacle = _compare(run, model, champion, frozen, engine)
    stats: ScoreStats = {"evaluation_set": frozen.version, **_summarize(documents, unit, obstacle)}
    entry = store.write_file(run.score, SCORES, format_scores(documents))
    inputs |= {"unit": unit, "not_compared": obstacle}
    store.publish_manifest(run.score, Manifest("scores", model.fingerprint, (entry,), dict(stats), inputs))
    progress(f"{counted(len(documents), 'document')}, {_describe(stats, unit)}")
    return {**stats, "reused": False, "scoring_seconds": time.perf_counter() - started}


def _compare(
    run: Run, model: Manifest, champion: Champion | None, frozen: FrozenSet, engine: Engine
) -> tuple[LossUnit, list[DocumentScore], str]:
    """Return the unit of the losses, the score of each document, and why the champion is not compared.

    The reason is empty if the champion is compared, or if there is no champion.
    """
    loaded, tokenizer = load_model(run.model)
    unit = loaded.loss_unit
    obstacle = why_not_comparable(champion, run, loaded, tokenizer) if champion else ""
    del loaded
    scored = _score(frozen, run.model, model.fingerprint, engine)
    before: list[ScoredDocument] = []
    if champion and not obstacle:
        try:
            before = _score(frozen, champion.model_uri, champion.model, engine)
        except InputError as error:  # a vocabulary without an unknown token cannot encode all text
            obstacle = f"the champion cannot encode the evaluation set: {error}"
    documents = [
        DocumentScore(each.document, each.num_bytes, _finite(each.loss), _finite(before[i].loss) if before else None)
        for i, each in enumerate(scored)
    ]
    return unit, documents, obstacle


def _score(frozen: FrozenSet, model_uri: str, fingerprint: str, engine: Engine) -> list[ScoredDocument]:
    """Return the loss of the model at `model_uri` on each document of the set, in the order of the set."""
    score = partial(
        score_part,
        set_uri=frozen.uri,
        model_uri=model_uri,
        fingerprint=fingerprint,
        threads=engine.task_threads(len(frozen.parts)),
    )
    return [each for part in engine.map(score, frozen.parts, "score documents") for each in part]


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _summarize(documents: Sequence[DocumentScore], unit: LossUnit, obstacle: str) -> ScoreStats:
    """Return the statistics of the scores. A model's mean loss is None if its loss on any document is not finite."""
    num_bytes = sum(each.num_bytes for each in documents)
    stats: ScoreStats = {"num_documents": len(documents), "num_bytes": num_bytes, "not_compared": obstacle}
    for name, losses in (
        ("frozen", [each.challenger for each in documents]),
        ("champion", [each.champion for each in documents]),
    ):
        finite = [loss for loss in losses if loss is not None]
        per_byte = sum(finite) / num_bytes if len(finite) == len(documents) else None
        in_bits = per_byte / math.log(2) if per_byte is not None and unit == "nats" else None
        if name == "frozen":
            stats |= {"frozen_loss_per_byte": per_byte, "frozen_bits_per_byte": in_bits}
        else:
            stats |= {"champion_loss_per_byte": per_byte, "champion_bits_per_byte": in_bits}
    return stats


def _describe(stats: ScoreStats, unit: LossUnit) -> str:
    own, others = stats["frozen_loss_per_byte"], stats["champion_loss_per_byte"]
    shown = "a loss that is not finite" if own is None else f"{own:.4f} {unit} per byte"
    if stats["not_compared"]:
        return f"{shown}; not compared with the champion: {stats['not_compared']}"
    return shown if others is None else f"{shown}, the champion {others:.4f}"
