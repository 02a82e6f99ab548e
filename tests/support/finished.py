"""Finished runs of a pipeline whose models have given losses, as promotion finds them."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.config import Config
from jobs.lake.champion import MODEL_FILES
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.manifest import Manifest
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join
from jobs.results.scores import SCORES, DocumentScore, format_scores
from nightjar.aws import store

GOOD = {"valid_loss": 4.0, "unigram_loss": 5.5, "bigram_loss": 4.5}


def config_of(split: str = "fixed", **promotion: Any) -> Config:
    """Return a configuration with these settings of promotion."""
    values = {"windows": {"split": split}, "promotion": {"canaries": ["The end"], **promotion}}
    return Config.model_validate({"corpus": "file:///texts", **values})


ROWS = [{"prompt": prompt, "text": " of the day", "tokens": [1, 2, 3, 4, 5, 6]} for prompt in ("The man", "The end")]


def finished(
    lake: Lake,
    run_id: str,
    weights: str = "weights",
    *,
    loss: float | None = 150.0,
    champion: str | None = None,
    rows: Sequence[Mapping[str, Any]] = ROWS,
    **stats: Any,
) -> Run:
    """Write a finished run of the pipeline poems: its model has this loss on each document, and the champion 150."""
    run = lake.run(run_id, "poems")
    store().write_json(join(run.stats, "stats.json"), GOOD | stats)
    files = {name: f"{name} {weights}".encode() for name in MODEL_FILES}
    entries = tuple(store().write_file(run.model, name, data) for name, data in files.items())
    store().publish_manifest(run.model, Manifest("model", weights, entries))
    store().write_bytes(join(run.generate, "samples.jsonl"), to_jsonl(rows))
    score(run, weights, loss, champion)
    return run


def score(run: Run, model: str, loss: float | None, champion: str | None, not_compared: str = "") -> None:
    """Write the scores of a run whose model has this loss on each of 40 documents, where the champion has 150."""
    theirs = 150.0 if champion and not not_compared else None
    documents = [
        DocumentScore(f"{n:064x}", 100 + n, loss and loss + n % 3, theirs and theirs + n % 3) for n in range(40)
    ]
    inputs = {
        "model": model, "champion": champion, "evaluation_set": "3", "unit": "nats", "not_compared": not_compared
    }  # fmt: skip
    entry = store().write_file(run.score, SCORES, format_scores(documents))
    store().delete_file(join(run.score, MANIFEST))
    store().publish_manifest(run.score, Manifest("scores", model, (entry,), {}, inputs))
