"""Whether a champion can be compared with a run's model on the evaluation set, or why not."""

from __future__ import annotations

import torch

from jobs.config import of_run
from jobs.errors import DamagedError, InputError
from jobs.lake.champion import Champion
from jobs.lake.layout import Pipeline, Run
from jobs.model.language_model import LanguageModel
from jobs.model_io.folder import load_model
from jobs.tokenizer.tokenizer import Tokenizer


def find_obstacle(champion: Champion, run: Run, model: LanguageModel, tokenizer: Tokenizer) -> str:
    """Return why the champion has no comparable loss, in one line; empty if it has one.

    `model` and `tokenizer` are those of `run`.
    """
    if reason := _may_have_trained(champion, run):
        return reason
    try:
        return _difference(*load_model(champion.model_uri), model, tokenizer)
    except (DamagedError, InputError, FileNotFoundError) as error:
        return f"the champion cannot be opened: {error}"


def _difference(other: LanguageModel, others_tokenizer: Tokenizer, model: LanguageModel, tokenizer: Tokenizer) -> str:
    """Return why the losses of two models are not comparable; empty if they are."""
    if other.loss_unit != model.loss_unit:
        return f"the champion's loss is in {other.loss_unit}, that of this model in {model.loss_unit}"
    if model.loss_unit == "nats":
        return ""
    # Distances between vectors are only of the same size if the vectors are the same.
    if others_tokenizer.json != tokenizer.json:
        return "the champion predicts the vectors of another vocabulary; set tokenize.tokenizer=inherit"
    if other.embeddings.shape != model.embeddings.shape or not torch.equal(other.embeddings, model.embeddings):
        return "the champion predicts other vectors; set train.init=champion"
    return ""


def _may_have_trained(champion: Champion, run: Run) -> str:
    """Return why the champion may have trained on the evaluation set; empty if it has not."""
    if not champion.run:
        return f"the champion is of an earlier version, so run {champion.run_id} may have trained on the evaluation set"
    theirs = Run(run.lake_uri, champion.run)
    if Pipeline.of(theirs) != Pipeline.of(run):
        return f"the champion's run {champion.run} is of another pipeline, so it may have trained on the evaluation set"
    try:
        split = of_run.read_config(theirs).windows.split
    except (FileNotFoundError, InputError):
        return f"the configuration of the champion's run is not in {theirs.uri}, so what it trained on is unknown"
    if split != "fixed":
        return f"the champion's run has windows.split={split}, so it may have trained on the evaluation set"
    return ""
