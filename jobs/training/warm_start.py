"""The weights that a training starts from: random ones, those of an earlier model, or given embeddings."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, replace
from typing import Any

import torch

from jobs.config.sections.model import EMBED
from jobs.datasets.tokens import TokensDataset
from jobs.embeddings.files import read_embeddings, token_names
from jobs.embeddings.uses import initial_weights
from jobs.errors import InputError, reading
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.models import TOKENIZER, read_model_file
from jobs.lake.runs import used_datasets
from jobs.lake.uri import join
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape, LanguageModel
from jobs.model_io.folder import load_model
from jobs.model_io.lineage import ModelOrigin
from jobs.sources.inputs import check_model, find_start
from jobs.sources.new_text import files_behind, share_of_new
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.training.checkpoint import latest_checkpoint
from jobs.training.job import TrainingJob

log = logging.getLogger(__name__)


SCRATCH = "scratch"
"""The name of random weights in the statistics."""


def locate_start(job: TrainingJob) -> tuple[TrainingJob, dict[str, Any]]:
    """Decide from which weights training starts. Return a job with this decision, and statistics about the start.

    In the returned job, `train.init` is the URI of the earlier model. It is None for random weights, or if training
    resumes from a checkpoint. `train.epochs` is set as `train.epochs_of_new_text` requires. The statistics say where
    the weights come from, and which share of the text is new to the earlier model.

    The first attempt checks that the earlier model fits, and stores the decision. Later attempts read it.
    """
    config, run = job.config, job.run
    is_resumed, decision = latest_checkpoint(run) is not None, run.start
    try:
        with reading(decision, f"delete {run.train} and run the step again"):
            decided = store.read_json(decision)
            uri, origin, new_share = decided["init"], decided.get("origin"), decided.get("new_share")
            # A training that an earlier version began continues in the order of windows of that version.
            weights = origin["weights"] if origin and "new_share" in decided else ""
    except FileNotFoundError:
        # A checkpoint without this file was written by an earlier version.
        uri = config.train.init if is_resumed else _decide(job)
        known = None if uri is None or is_resumed else ModelOrigin.read(uri, Lake(run.lake_uri))
        weights = known.weights if known else ""
        new_share = _share_of_new_text(job, known.uri) if known else None
        store.write_json(decision, {"init": uri, "origin": asdict(known) if known else None, "new_share": new_share})
    train = config.train.with_epochs_for(new_share)
    started = replace(
        job,
        config=config.model_copy(update={"train": train.model_copy(update={"init": None if is_resumed else uri})}),
        weights=weights,
        is_for_new_text=train.epochs != config.train.epochs,
    )
    return started, {"weights_from": uri or SCRATCH, "new_text_share": new_share}


def read_start(run: Run) -> ModelOrigin | None:
    """Return the model that a training has started from. Return None for random weights."""
    with reading(run.start, f"delete {run.train} and run the step again"):
        found = store.read_json(run.start)
        if found["init"] is None:
            return None
        # Earlier versions wrote only the URI of the model.
        return ModelOrigin(**(found.get("origin") or {"uri": found["init"], "name": "", "weights": "", "run": ""}))


def _decide(job: TrainingJob) -> str | None:
    """Return the URI of the model to start from, after a check that it fits. Return None for random weights."""
    init = job.config.train.init
    uri = find_start(init, Lake(job.run.lake_uri))
    if uri is not None:
        check_model(job.config, uri)
        check_tokenizer(TokensDataset.of_run(job.run).read_tokenizer(), uri)
    elif init is not None:
        log.info("train.init=%s: the lake has no champion yet, so training starts from scratch", init)
    return uri


def _share_of_new_text(job: TrainingJob, uri: str) -> float | None:
    """Return the share of the text in files that the corpus of the model at `uri` did not contain.

    Return None if the files of that corpus are not known. In a replay, return the share that the record contains.
    """
    if job.record:
        return job.record.new_share
    known = files_behind(uri, Lake(job.run.lake_uri))
    if known is None:
        return None
    files = [(each["sha256"], each["text_bytes"]) for each in TokensDataset.of_run(job.run).files]
    share = share_of_new(files, (each["sha256"] for each in known))
    log.info("%.1f%% of the text is new to the model that training starts from", 100 * share)
    return share


def initial_model(job: TrainingJob, shape: DataShape) -> LanguageModel:
    """Build the model of a job with its initial weights."""
    config = job.config
    model = build_model(config.model, shape, config.train.seed)
    if config.train.init is not None:
        model.load_state_dict(load_model(config.train.init)[0].state_dict())
        log.info("training starts from the weights of %s", config.train.init)
    if config.train.embeddings is not None:
        uri = embeddings_uri(job.run, config.train.embeddings)
        names = token_names(TokensDataset.of_run(job.run).read_tokenizer().json)
        weights = initial_weights(read_embeddings(uri), names, model.embeddings.detach().numpy(), uri)
        model.set_embeddings(torch.from_numpy(weights))
    return model


def check_tokenizer(tokenizer: Tokenizer, uri: str) -> None:
    """Raise an InputError if the model at `uri` has another tokenizer than `tokenizer`."""
    earlier = Tokenizer(read_model_file(uri, TOKENIZER), join(uri, TOKENIZER))
    ours, theirs = (hashlib.sha256(each.json).hexdigest()[:12] for each in (tokenizer, earlier))
    if ours != theirs:
        raise InputError(
            f"train.init ({uri}): its tokenizer ({theirs}) differs from this run's ({ours}); set"
            " tokenize.tokenizer=inherit, or remove train.init to start from random weights"
        )


def embeddings_uri(run: Run, embeddings: str) -> str:
    """Return the path or URI of the embeddings that `train.embeddings` names."""
    if embeddings != EMBED:
        return embeddings
    name = used_datasets(run).get("embeddings")
    if name is None:
        raise InputError(f"{run.datasets}: lists no embeddings; run the embed step first")
    return Lake(run.lake_uri).dataset("embeddings", name)
