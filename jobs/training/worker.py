"""One member of a training gang, from its first breath to its last: it finds the latest checkpoint by itself."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch

from jobs.config import Config
from jobs.config.sections.train import EMBED
from jobs.datasets.publish import used_datasets
from jobs.datasets.tokens import read_tokenizer
from jobs.embeddings.files import read_embeddings, token_names
from jobs.embeddings.initial import initial_weights
from jobs.engine.base import WorkerContext
from jobs.errors import InputError
from jobs.lake.layout import Lake, Run
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape, LanguageModel
from jobs.training.checkpoint import TrainingState, latest_checkpoint, load_checkpoint
from jobs.training.data import TrainingData
from jobs.training.learner import Learner, choose_device
from jobs.training.loop import Loop
from jobs.training.memory import keep_freed_memory
from jobs.training.process_group import Group, joined
from jobs.training.stopping import has_stopped_improving
from jobs.training.supervision.guards import guarded
from jobs.training.warm_start import take_weights

log = logging.getLogger(__name__)

# What may differ between the attempts of a run: the result is the same but for rounding.
_FREE = {
    "workers", "checkpoint_every", "checkpoint_seconds", "keep_checkpoints", "keep_best", "max_restarts",
    "gang_timeout_seconds", "step_timeout_seconds", "eval_every", "state_every", "on_divergence", "max_rollbacks",
    "max_loss_rise",
    "init",  # config.json is written once; `champion` may be another model when a run is resumed
}  # fmt: skip


def train_worker(
    member: WorkerContext,
    run: Run,
    config: Config,
    windows_fingerprint: str,
    until: int | None = None,
    skipped: Sequence[int] = (),
) -> dict[str, Any]:
    """Train with the other members of the gang until the run's schedule is over, or `until` so many steps are done.

    Batches whose numbers are in `skipped` are left out.

    Returns:
        Facts that the metrics do not tell, the same on every member; `is_complete` is false if one was told to end.

    Raises:
        NightjarError: if training diverged, or the data or a checkpoint cannot be used.
    """
    keep_freed_memory()
    torch.set_num_threads(member.threads)  # PySpark sets OMP_NUM_THREADS=1 whatever the task owns
    timeout_seconds = max(config.train.gang_timeout_seconds, config.train.step_timeout_seconds + 60)
    with guarded(member, run, config.train.step_timeout_seconds) as guards, joined(member, timeout_seconds) as group:
        data = TrainingData.open(Lake(run.lake_uri), windows_fingerprint)
        model = start_model(run, config, data.shape)
        learner = Learner(model, config.train, choose_device(member.rank))
        state = _resume(run, settings_hash(config, windows_fingerprint), learner, group)
        is_complete = Loop(run, config.train, data, learner, state, group, guards).run(until, skipped)
        return {
            "is_complete": is_complete,
            "num_parameters": model.num_parameters,
            "dtype": str(learner.dtype).removeprefix("torch."),
            "device": learner.device.type,
            "peak_resident_bytes": int(group.largest(peak_resident_bytes())),
            "stopped_early": has_stopped_improving(state, config.train),
            "best_step": state.best_step,
            "best_valid_loss": state.best_valid_loss,
        }


def start_model(run: Run, config: Config, shape: DataShape) -> LanguageModel:
    """The model with its first weights: those of an earlier model, or random ones, and embeddings that the run names.

    Raises:
        InputError: if the earlier model or the embeddings cannot be read, or do not fit the model.
    """
    model = build_model(config.model, shape, config.train.seed)
    if config.train.init is not None:
        take_weights(model, config.train.init, read_tokenizer(Lake(run.lake_uri), used_datasets(run)["tokens"]))
    if config.train.embeddings is not None:
        place = embeddings_uri(run, config.train.embeddings)
        names = token_names(read_tokenizer(Lake(run.lake_uri), used_datasets(run)["tokens"]).json)
        weights = model.embeddings.detach().numpy()
        started = initial_weights(read_embeddings(place), names, weights, place)
        model.set_embeddings(torch.from_numpy(started))
    return model


def embeddings_uri(run: Run, embeddings: str) -> str:
    """Where the vectors lie that `train.embeddings` names.

    Raises:
        InputError: if they are to be the run's own, and it has none yet.
    """
    if embeddings != EMBED:
        return embeddings
    name = used_datasets(run).get("embeddings")
    if name is None:
        raise InputError(f"{run.datasets}: names no embeddings; run the embed step first")
    return Lake(run.lake_uri).embeddings(name)


def settings_hash(config: Config, windows_fingerprint: str) -> str:
    """A hash of everything that decides the weights: what a checkpoint must have been made with to be resumed."""
    settings = {
        "windows": windows_fingerprint,
        "model": config.model.model_dump(),
        "train": config.train.model_dump(exclude=_FREE),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _resume(run: Run, settings: str, learner: Learner, group: Group) -> TrainingState:
    """The state of the latest whole checkpoint, which the first worker chooses for all; or the initial one."""
    found = latest_checkpoint(run) if group.is_first else None
    step = int(group.largest(-1 if found is None else found))
    if step < 0:
        return TrainingState(settings)
    if group.is_first:
        log.info("resuming from the checkpoint of step %d", step)
    return load_checkpoint(run, step, settings, learner.model, learner.optimizer)


def peak_resident_bytes() -> int:
    """The most memory that this process ever had; the system counts it in KiB, but macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
