"""The scores of a run: the losses of the run's model and of the champion on each document of the evaluation set.

The pipeline step `score` writes the scores, and the gate decides about promotion by them. Losses of whole documents,
divided by bytes of text, can be compared between models with different vocabularies. Airflow imports this module, so it
does not use numpy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.errors import DamagedError, reading
from jobs.lake.layout import Run
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join

SCORES = "scores.jsonl"
NATS = "nats"
"""The unit of the losses of models that predict tokens."""


@dataclass(frozen=True)
class DocumentScore:
    """The loss of one document under two models."""

    document: str
    """The sha256 of the document's text."""
    num_bytes: int
    """Bytes of the document's text in UTF-8."""
    challenger: float | None
    """The loss of the run's model, summed over the document, in `Scores.unit`; None if it is not finite."""
    champion: float | None
    """The champion's loss, summed in the same way. None if there was no champion, or if it could not be compared."""


@dataclass(frozen=True)
class Scores:
    """The scores of a run's model."""

    model: str
    """The fingerprint of the run's model."""
    champion: str | None
    """The name of the champion's folder in `Lake.models`; None if there was no champion."""
    evaluation_set: str
    """The version of the evaluation set."""
    unit: str
    """The unit of the losses: ``nats``, or ``squared distance`` for models that predict embeddings."""
    documents: tuple[DocumentScore, ...]
    not_compared: str = ""
    """Why the champion could not be compared, in one line, or "". Without a comparison, the champion stays."""

    @property
    def bits_per_byte(self) -> float | None:
        """The loss of the run's model on all documents, in bits per byte of text.

        None if the losses are in another unit than nats, a loss is not finite, or there is no text.
        """
        losses = [each.challenger for each in self.documents]
        num_bytes = sum(each.num_bytes for each in self.documents)
        if self.unit != NATS or None in losses or num_bytes == 0:
            return None
        return math.fsum(loss for loss in losses if loss is not None) / math.log(2) / num_bytes


def format_scores(documents: Sequence[DocumentScore]) -> bytes:
    """Return the content of the file of scores, one line for each document."""
    return to_jsonl(
        {
            "document": each.document,
            "num_bytes": each.num_bytes,
            "challenger": each.challenger,
            "champion": each.champion,
        }
        for each in documents
    )


def read_scores(run: Run, store: Store = ENVIRONMENT) -> Scores | None:
    """Return the scores of a run. Return None if it has none. Raise DamagedError if they are damaged."""
    manifest = store.read_manifest(run.score)
    if manifest is None:
        return None
    uri = join(run.score, SCORES)
    entry = next((each for each in manifest.files if each.name == SCORES), None)
    if entry is None:
        raise DamagedError(f"{run.score}: the manifest does not list {SCORES}; clear the task score")
    with reading(uri, "clear the task score"):
        lines = store.read_file(run.score, entry).decode().splitlines()
        documents = tuple(DocumentScore(**json.loads(line)) for line in lines)
        inputs = manifest.inputs
        return Scores(
            inputs["model"],
            inputs["champion"],
            inputs["evaluation_set"],
            inputs["unit"],
            documents,
            inputs["not_compared"],
        )
