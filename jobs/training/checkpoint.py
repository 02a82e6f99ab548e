"""Checkpoints: everything from which training goes on as if it had not stopped.

``<run>/train/checkpoints/<step>/`` holds ``model.safetensors`` (as in the model folder), ``optimizer.safetensors``
(tensors named ``<quantity>/<parameter>``), ``state.json``, the run's ``config.json``, and ``_manifest.json``, which is
written last: without it there is no checkpoint. No generator's state is there, since the random numbers of a step are a
function of the seed, the step and the worker.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from jobs.config import TrainConfig
from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.layout import MANIFEST, Run
from jobs.lake.uri import base_name
from jobs.model.language_model import LanguageModel

log = logging.getLogger(__name__)

MODEL, OPTIMIZER, STATE, CONFIG = "model.safetensors", "optimizer.safetensors", "state.json", "config.json"


@dataclass
class TrainingState:
    """Where training stands: `steps` done, `seconds` spent, and the best validation loss so far (nats) with its step.

    `mean_loss` is the moving mean of the batches' losses.
    `settings` is a hash of all that a run cannot change in its middle; the data cursor is `steps` times the batch size.
    """

    settings: str
    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    best_step: int | None = None
    best_valid_loss: float | None = None
    mean_loss: float | None = None

    def advance(self, num_tokens: int, seconds: float) -> None:
        """Count a step; `seconds` is the time spent in training so far."""
        self.steps += 1
        self.tokens += num_tokens
        self.seconds = seconds

    def took(self, loss: float) -> None:
        """Take a batch's loss into the moving mean, whose memory is about 20 steps."""
        self.mean_loss = loss if self.mean_loss is None else 0.95 * self.mean_loss + 0.05 * loss

    def saw(self, valid_loss: float) -> None:
        """Take note of a validation."""
        if self.best_valid_loss is None or valid_loss < self.best_valid_loss:
            self.best_step, self.best_valid_loss = self.steps, valid_loss


class Checkpoints:
    """Writes a run's checkpoints when they are due; keeps the latest ones and the best."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        self._run = run
        self._config = config
        self._written = time.monotonic()

    def is_due(self, state: TrainingState) -> bool:
        """Whether steps, seconds or a validation ask for a checkpoint now."""
        return (
            state.steps % self._config.checkpoint_every == 0
            or time.monotonic() - self._written >= self._config.checkpoint_seconds
            or (self._config.keep_best and state.best_step == state.steps)
        )

    def write(self, state: TrainingState, model: LanguageModel, optimizer: torch.optim.Optimizer) -> None:
        """Write the checkpoint after ``state.steps`` steps, then delete the ones that are no longer kept."""
        save_checkpoint(self._run, state, model, optimizer)
        self._written = time.monotonic()
        best = state.best_step if self._config.keep_best else None
        for step in complete_checkpoints(self._run)[: -self._config.keep_checkpoints]:
            if step != best:
                store.delete_folder(self._run.checkpoint(step))


def save_checkpoint(run: Run, state: TrainingState, model: LanguageModel, optimizer: torch.optim.Optimizer) -> None:
    """Write the checkpoint after ``state.steps`` steps; nothing of it stays if that fails."""
    folder = run.checkpoint(state.steps)
    store.delete_folder(folder)  # what an attempt left that was lost while it wrote
    try:
        files = (
            store.write_file(folder, MODEL, save(dict(model.state_dict()), {"format": "pt"})),
            store.write_file(folder, OPTIMIZER, save(optimizer_tensors(model, optimizer))),
            store.write_file(folder, STATE, json.dumps(asdict(state), indent=2).encode() + b"\n"),
            store.write_file(folder, CONFIG, store.read_bytes(run.config)),
        )
        store.publish_manifest(folder, store.Manifest("checkpoint", state.settings, files, {"steps": state.steps}))
    except BaseException:
        with suppress(Exception):  # what failed is told, not what could not be cleaned up after it
            store.delete_folder(folder)
        raise


def complete_checkpoints(run: Run) -> list[int]:
    """The steps of all checkpoints that have a manifest, the latest last."""
    manifests = [info.uri for info in store.list_files(run.checkpoints) if base_name(info.uri) == MANIFEST]
    return sorted(int(base_name(uri.rpartition("/")[0])) for uri in manifests)


def latest_checkpoint(run: Run) -> int | None:
    """The step of the latest checkpoint that is whole; damaged ones are deleted, with a warning."""
    for step in reversed(complete_checkpoints(run)):
        try:
            _read(run, step)
        except DamagedError as error:
            log.warning("checkpoint of step %d is damaged, going back to the one before: %s", step, error)
            store.delete_folder(run.checkpoint(step))
        else:
            return step
    return None


def best_checkpoint(run: Run) -> int | None:
    """The step of the checkpoint with the lowest validation loss; the latest, if that one is not there."""
    latest = latest_checkpoint(run)
    if latest is None:
        return None
    best = TrainingState(**json.loads(_read(run, latest)[STATE])).best_step
    try:
        if best is not None:
            _read(run, best)
            return best
    except DamagedError as error:
        log.warning("the checkpoint of the best step, %d, cannot be used: %s", best, error)
    return latest


def load_checkpoint(
    run: Run, step: int, settings: str, model: LanguageModel, optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Put model and optimizer into the state of a checkpoint.

    Raises:
        DamagedError: if it is not whole.
        InputError: if it was made with other settings.
    """
    files = _read(run, step)
    state = TrainingState(**json.loads(files[STATE]))
    if state.settings != settings:
        raise InputError(
            f"{run.checkpoint(step)}: was made with another configuration or other data; use a new run id,"
            f" or delete {run.train}"
        )
    model.load_state_dict(load(files[MODEL]))
    load_optimizer_tensors(model, optimizer, load(files[OPTIMIZER]))
    return state


def load_weights(run: Run, step: int, model: LanguageModel) -> None:
    """Put the model alone into the state of a checkpoint."""
    model.load_state_dict(load(read_part(run, step, MODEL)))


def read_part(run: Run, step: int, name: str) -> bytes:
    """One file of a checkpoint.

    Raises:
        DamagedError: if it is not whole.
    """
    manifest = store.read_manifest(run.checkpoint(step))
    if manifest is None:
        raise DamagedError(f"{run.checkpoint(step)}: no checkpoint here; delete it and run again")
    (entry,) = manifest.entries(name)
    return store.read_file(run.checkpoint(step), entry)


def _read(run: Run, step: int) -> dict[str, bytes]:
    folder = run.checkpoint(step)
    manifest = store.read_manifest(folder)
    if manifest is None:
        raise DamagedError(f"{folder}: no checkpoint here; delete it and run again")
    return {entry.name: store.read_file(folder, entry) for entry in manifest.files}


def optimizer_tensors(model: LanguageModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers of each parameter."""
    return {
        f"{quantity}/{name}": tensor
        for name, parameter in model.named_parameters()
        for quantity, tensor in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(
    model: LanguageModel, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put `optimizer_tensors` back, in place of what the optimizer remembers."""
    parameters = dict(model.named_parameters())
    states: dict[Tensor, dict[str, Any]] = {parameter: {} for parameter in parameters.values()}
    for key, tensor in tensors.items():
        quantity, _, name = key.partition("/")
        parameter = parameters[name]
        states[parameter][quantity] = tensor.to(parameter.device)
    optimizer.state.clear()
    optimizer.state.update(states)
