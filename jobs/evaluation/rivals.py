"""Whether a champion can be compared with a run's model on the evaluation set, or why not.

Neither may have trained on the documents of the set. That is known of a run with the fixed split of the same pipeline,
if the model that its training started from is of such a run, too.
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

_MAX_STARTS = 1000  # nights in a row that started from the model of the one before


def find_obstacle(champion: Champion, run: Run, model: LanguageModel, tokenizer: Tokenizer) -> str:
    """Return why the champion and the model of `run` cannot be compared, in one line; empty if they can.

    `model` and `tokenizer` are those of `run`.
    """
    if reason := _find_doubt(run, run):
        return f"this model may have trained on the evaluation set: {reason}"
    if not champion.run:
        return f"the champion is of an earlier version, so run {champion.run_id} may have trained on the evaluation set"
    if reason := _find_doubt(Run(run.lake_uri, champion.run), run):
        return f"the champion may have trained on the evaluation set: {reason}"
    try:
        return _difference(*load_model(champion.model_uri), model, tokenizer)
    except (DamagedError, InputError, FileNotFoundError) as error:
        return f"the champion cannot be opened: {error}"


def _find_doubt(theirs: Run | None, run: Run) -> str:
    """Return why a run, or one that its model descends from, may have trained on the evaluation set of `run`."""
    for _ in range(_MAX_STARTS):
        assert theirs is not None
        if Pipeline.of(theirs) != Pipeline.of(run):
            return f"run {theirs.folder} is of another pipeline"
        try:
            config = of_run.read_config(theirs)
        except (FileNotFoundError, InputError):
            return f"the configuration of its run is not in {theirs.uri}"
        if config.windows.split != "fixed":
            return f"run {theirs.folder} has windows.split={config.windows.split}"
        start = _start_of(theirs, config.train.init)
        if start is None:
            return ""
        theirs = _run_of(start, run)
        if theirs is None:
            return f"training started from {start}, which is of no run of this pipeline"
    return f"more than {_MAX_STARTS} runs started from each other's models"


def _start_of(run: Run, init: str | None) -> str | None:
    """Return the URI of the model that a run's training started from; None if from random weights."""
    try:
        found = store.read_json(run.start)
        return str(found["init"]) if found["init"] else None
    except FileNotFoundError:
        return init


def _run_of(model_uri: str, run: Run) -> Run | None:
    """Return the run of `run`'s lake that trained a model; None if it is not known."""
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
        return f"the champion's loss is in {other.loss_unit}, that of this model in {model.loss_unit}"
    if model.loss_unit == "nats":
        return ""
    # Distances between vectors are only of the same size if the vectors are the same.
    if others_tokenizer.json != tokenizer.json:
        return "the champion predicts the vectors of another vocabulary; set tokenize.tokenizer=inherit"
    if other.embeddings.shape != model.embeddings.shape or not torch.equal(other.embeddings, model.embeddings):
        return "the champion predicts other vectors; set train.init=champion"
    return ""
