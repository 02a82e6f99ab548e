"""Checks whether a champion can be compared with a run's model on the evaluation set, and explains why not.

Neither model may have trained on documents of the set. That is certain for a model from a run of the same pipeline with
``windows.split=fixed``. If the training started from another model, that model must be from such a run, too.
"""

from __future__ import annotations

import torch

from jobs.config import of_run
from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.champion import Champion, read_champion
from jobs.lake.layout import Lake, Pipeline, Run
from jobs.lake.models import folder_of_run
from jobs.lake.uri import join
from jobs.model.language_model import LanguageModel
from jobs.model_io.folder import load_model
from jobs.tokenizer.tokenizer import Tokenizer

_MAX_STARTS = 1000  # runs in a row, each of which started from the model of the previous one


def why_not_comparable(champion: Champion, run: Run, model: LanguageModel, tokenizer: Tokenizer) -> str:
    """Return why the champion and the model of `run` cannot be compared, in one line; empty if they can.

    `model` and `tokenizer` are those of `run`.
    """
    if reason := _why_uncertain(run, run):
        return f"this model may have trained on the evaluation set: {reason}"
    if not champion.run:
        return (
            "the champion may have trained on the evaluation set: an earlier version of Nightjar promoted it, and did"
            f" not record the folder of its run {champion.run_id}"
        )
    if reason := _why_uncertain(Run(run.lake_uri, champion.run), run):
        return f"the champion may have trained on the evaluation set: {reason}"
    try:
        return _difference(*load_model(champion.model_uri), model, tokenizer)
    except (DamagedError, InputError, FileNotFoundError) as error:
        return f"the champion cannot be opened: {error}"


def _why_uncertain(theirs: Run | None, run: Run) -> str:
    """Return why the model of the run `theirs` may have been trained on the evaluation set of `run`.

    Return an empty string if it certainly was not.
    """
    for _ in range(_MAX_STARTS):
        assert theirs is not None
        if Pipeline.of(theirs) != Pipeline.of(run):
            return f"run {theirs.folder} belongs to another pipeline"
        try:
            config = of_run.read_config(theirs)
        except (FileNotFoundError, InputError):
            return f"{theirs.uri} has no configuration that can be read"
        if config.windows.split != "fixed":
            return f"run {theirs.folder} has windows.split={config.windows.split}"
        start = _start_of(theirs, config.train.init)
        if start is None:
            return ""
        theirs = _run_of(start, run)
        if theirs is None:
            return f"training started from {start}, which is not a model of a known run"
    return f"the model descends from more than {_MAX_STARTS} earlier models"


def _start_of(run: Run, init: str | None) -> str | None:
    """Return the URI of the model that a run's training started from. Return None if it started from random weights.

    If the run has not recorded it, return `init`, the run's setting `train.init`.
    """
    try:
        found = store.read_json(run.start)
        return str(found["init"]) if found["init"] else None
    except FileNotFoundError:
        return init


def _run_of(model_uri: str, run: Run) -> Run | None:
    """Return the run, in the lake of `run`, that trained the model at `model_uri`. Return None if it is not known."""
    lake = Lake(run.lake_uri)
    if folder := folder_of_run(model_uri, lake):
        return Run(run.lake_uri, folder)
    champion, _ = read_champion(Pipeline.of(run))
    for change in champion.history if champion else ():
        if model_uri == join(lake.models, change.model):
            return Run(run.lake_uri, change.run)
    return None


def _difference(other: LanguageModel, others_tokenizer: Tokenizer, model: LanguageModel, tokenizer: Tokenizer) -> str:
    """Return why the losses of two models are not comparable; empty if they are."""
    if other.loss_unit != model.loss_unit:
        return f"the champion's loss is in {other.loss_unit}, but this model's loss is in {model.loss_unit}"
    if model.loss_unit == "nats":
        return ""
    # Distances to vectors can only be compared if the vectors are the same.
    if others_tokenizer.json != tokenizer.json:
        return "the champion predicts the vectors of another vocabulary; set tokenize.tokenizer=inherit"
    if other.embeddings.shape != model.embeddings.shape or not torch.equal(other.embeddings, model.embeddings):
        return "the champion predicts other vectors; set train.init=champion"
    return ""
