"""The weights that a training starts from: random ones, those of an earlier model, or given embeddings."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import torch

from jobs.config.sections.model import EMBED
from jobs.datasets.publish import used_datasets
from jobs.datasets.tokens import TokensDataset
from jobs.embeddings.files import read_embeddings, token_names
from jobs.embeddings.uses import initial_weights
from jobs.errors import InputError
from jobs.lake.layout import Lake, Run
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape, LanguageModel
from jobs.model_io.folder import find_model, load_model
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.training.checkpoint import latest_checkpoint
from jobs.training.job import TrainingJob

log = logging.getLogger(__name__)


def locate_start(job: TrainingJob) -> TrainingJob:
    """Replace the name in `train.init` by the URI of that model; by None once the run has a checkpoint."""
    config = job.config
    if config.train.init is None:
        return job
    uri = find_model(config.train.init, Lake(job.run.lake_uri)) if latest_checkpoint(job.run) is None else None
    train = config.train.model_copy(update={"init": uri})
    return replace(job, config=config.model_copy(update={"train": train}))


def initial_model(job: TrainingJob, shape: DataShape) -> LanguageModel:
    """Build the model of a job with its initial weights."""
    config = job.config
    model = build_model(config.model, shape, config.train.seed)
    if config.train.init is not None:
        take_weights(model, config.train.init, TokensDataset.of_run(job.run).read_tokenizer())
    if config.train.embeddings is not None:
        uri = embeddings_uri(job.run, config.train.embeddings)
        names = token_names(TokensDataset.of_run(job.run).read_tokenizer().json)
        weights = initial_weights(read_embeddings(uri), names, model.embeddings.detach().numpy(), uri)
        model.set_embeddings(torch.from_numpy(weights))
    return model


def take_weights(model: LanguageModel, uri: str, tokenizer: Tokenizer) -> None:
    """Load the weights of the model at `uri`, which must have the same `tokenizer` and shapes, into `model`."""
    earlier, its_tokenizer = load_model(uri)
    ours, theirs = (hashlib.sha256(each.json).hexdigest()[:12] for each in (tokenizer, its_tokenizer))
    if ours != theirs:
        raise InputError(
            f"train.init ({uri}): its tokenizer ({theirs}) differs from this run's ({ours}); set"
            " tokenize.tokenizer=inherit, or remove train.init to start from random weights"
        )
    shapes, its_shapes = ({name: tuple(t.shape) for name, t in m.state_dict().items()} for m in (model, earlier))
    for name in sorted(shapes.keys() | its_shapes.keys()):
        if shapes.get(name) != its_shapes.get(name):
            raise InputError(
                f"train.init ({uri}): {name} is {its_shapes.get(name, 'absent')} in that model and"
                f" {shapes.get(name, 'absent')} in this run; give model.* the values of that model"
            )
    model.load_state_dict(earlier.state_dict())
    log.info("training starts from the weights of %s", uri)


def embeddings_uri(run: Run, embeddings: str) -> str:
    """Return the place of the embeddings that `train.embeddings` names."""
    if embeddings != EMBED:
        return embeddings
    name = used_datasets(run).get("embeddings")
    if name is None:
        raise InputError(f"{run.datasets}: names no embeddings; run the embed step first")
    return Lake(run.lake_uri).dataset("embeddings", name)
