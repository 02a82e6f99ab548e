"""Checkpoints: everything that training needs to resume as if it had never stopped.

The manifest is written last: without it there is no checkpoint. The state of random generators is not stored, since the
random numbers of a step are a function of the seed, the step and the rank.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from jobs.config import TrainConfig
from jobs.errors import DamagedError, InputError, reading
from jobs.lake import store
from jobs.lake.layout import MANIFEST, Run
from jobs.lake.manifest import Manifest
from jobs.lake.strict_json import to_json
from jobs.lake.uri import base_name, join
from jobs.model.language_model import LanguageModel
from jobs.training.schedule import Schedule

log = logging.getLogger(__name__)

MODEL, OPTIMIZER, STATE, CONFIG = "model.safetensors", "optimizer.safetensors", "state.json", "config.json"


@dataclass
class TrainingState:
    """The state of a training besides weights and optimizer. `steps` also determines the next batch."""

    settings: str
    """Hash of the settings that must not change when a run resumes (`TrainingJob.settings_hash`)."""
    steps: int = 0
    seconds: float = 0.0
    """Training time so far, in seconds."""
    tokens: int = 0
    best_step: int | None = None
    """Step of the lowest validation loss so far."""
    best_valid_loss: float | None = None
    mean_loss: float | None = None
    """Moving mean of the batches' losses."""

    def add_step(self, *, num_tokens: int, seconds: float, loss: float | None = None) -> None:
        """Count a step, after which training has taken `seconds` seconds.

        `loss` enters the moving mean of about 20 losses.
        """
        self.steps += 1
        self.tokens += num_tokens
        self.seconds = seconds
        if loss is not None:
            self.mean_loss = loss if self.mean_loss is None else 0.95 * self.mean_loss + 0.05 * loss

    def add_validation(self, valid_loss: float) -> None:
        """Record this step as the best one if its validation loss is the lowest so far."""
        if math.isfinite(valid_loss) and (self.best_valid_loss is None or valid_loss < self.best_valid_loss):
            self.best_step, self.best_valid_loss = self.steps, valid_loss

    def is_over(self, schedule: Schedule) -> bool:
        """Return True if the schedule is over, or if training stops early."""
        return schedule.is_over(self.steps, self.seconds) or self.has_stopped_improving(schedule)

    def has_stopped_improving(self, schedule: Schedule) -> bool:
        """Return True if `train.early_stopping_evals` validations have passed since the lowest validation loss."""
        most = schedule.config.early_stopping_evals
        if most is None or self.best_step is None:
            return False
        # Validations are counted by steps, so a resumed run stops at the same step as an uninterrupted one.
        return schedule.num_evals(self.steps) - schedule.num_evals(self.best_step) >= most


class Checkpoints:
    """Writes a run's checkpoints, and deletes all but the latest ones and the best one."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        self._run = run
        self._config = config
        self._written = time.monotonic()

    def is_due(self, state: TrainingState) -> bool:
        """Return True if a checkpoint is due by the number of steps or by time, or after the best validation so far."""
        return (
            state.steps % self._config.checkpoint_every == 0
            or time.monotonic() - self._written >= self._config.checkpoint_seconds
            or (self._config.keep_best and state.best_step == state.steps)
        )

    def write(self, state: TrainingState, model: LanguageModel, optimizer: torch.optim.Optimizer) -> None:
        """Write the checkpoint after ``state.steps`` steps, then delete the checkpoints that are no longer kept.

        If the writing fails, delete the folder of the new checkpoint.
        """
        folder = self._run.checkpoint(state.steps)
        store.delete_folder(folder)  # an attempt that was killed may have left an incomplete folder
        try:
            files = (
                store.write_file(folder, MODEL, save(dict(model.state_dict()), {"format": "pt"})),
                store.write_file(folder, OPTIMIZER, save(optimizer_tensors(model, optimizer))),
                store.write_file(folder, STATE, to_json(asdict(state), join(folder, STATE))),
                store.write_file(folder, CONFIG, store.read_bytes(self._run.config)),
            )
            store.publish_manifest(folder, Manifest("checkpoint", state.settings, files, {"steps": state.steps}))
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                store.delete_folder(folder)
            raise
        self._written = time.monotonic()
        best = state.best_step if self._config.keep_best else None
        for step in complete_checkpoints(self._run)[: -self._config.keep_checkpoints]:
            if step != best:
                store.delete_folder(self._run.checkpoint(step))


def complete_checkpoints(run: Run) -> list[int]:
    """Return the steps of all checkpoints that have a manifest, the latest last."""
    manifests = [info.uri for info in store.list_files(run.checkpoints) if base_name(info.uri) == MANIFEST]
    return sorted(int(base_name(uri.rpartition("/")[0])) for uri in manifests)


def latest_checkpoint(run: Run) -> int | None:
    """Return the step of the latest intact checkpoint, or None. Delete damaged later ones, with a warning."""
    for step in reversed(complete_checkpoints(run)):
        try:
            _read(run, step)
        except DamagedError as error:
            log.warning("the checkpoint of step %d is damaged, so the previous one is used: %s", step, error)
            store.delete_folder(run.checkpoint(step))
        else:
            return step
    return None


def trained_seconds(run: Run) -> float:
    """Return the training time, in seconds, at the latest checkpoint. Return 0 without a checkpoint."""
    step = latest_checkpoint(run)
    if step is None:
        return 0.0
    with reading(join(run.checkpoint(step), STATE), "delete this checkpoint and run the step again"):
        return float(json.loads(read_part(run, step, STATE))["seconds"])


def _best_checkpoint(run: Run, latest: int) -> int:
    """Return the step of the checkpoint with the lowest validation loss, or `latest` if that checkpoint is unusable."""
    try:
        with reading(join(run.checkpoint(latest), STATE), "delete this checkpoint and run the step again"):
            best = json.loads(read_part(run, latest, STATE))["best_step"]
            if best is not None:
                _read(run, int(best))
                return int(best)
    except DamagedError as error:
        log.warning("the checkpoint of the best step cannot be used, so the latest one is used: %s", error)
    return latest


def load_checkpoint(
    run: Run, step: int, settings: str, model: LanguageModel, optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Load a checkpoint into `model` and `optimizer`, and return its `TrainingState`.

    Raises:
        DamagedError: if a file is missing, truncated or altered.
        InputError: if the checkpoint's hash of the settings differs from `settings`.
    """
    files = _read(run, step)
    with reading(join(run.checkpoint(step), STATE), "delete this checkpoint and run the step again"):
        state = TrainingState(**json.loads(files[STATE]))
    if state.settings != settings:
        raise InputError(
            f"{run.checkpoint(step)}: was made with another configuration or other data; use a new run id,"
            f" or delete {run.train}"
        )
    model.load_state_dict(load(files[MODEL]))
    load_optimizer_tensors(model, optimizer, load(files[OPTIMIZER]))
    return state


def load_final_weights(run: Run, model: LanguageModel, *, keep_best: bool) -> None:
    """Load the weights that a complete training publishes: the best ones with `keep_best`, otherwise the last ones."""
    step = latest_checkpoint(run)
    if step is None:
        raise DamagedError(f"{run.checkpoints}: no intact checkpoint, although training has ended; run the step again")
    if keep_best:
        step = _best_checkpoint(run, step)
    model.load_state_dict(load(read_part(run, step, MODEL)))


def read_part(run: Run, step: int, name: str) -> bytes:
    """Return the content of one file of a checkpoint; raise a DamagedError if it is missing, truncated or altered."""
    with reading(run.checkpoint(step), "delete this folder and run the step again"):
        (entry,) = _read_manifest(run, step).entries(name)
    return store.read_file(run.checkpoint(step), entry)


def _read(run: Run, step: int) -> dict[str, bytes]:
    entries = _read_manifest(run, step).files
    return {entry.name: store.read_file(run.checkpoint(step), entry) for entry in entries}


def _read_manifest(run: Run, step: int) -> Manifest:
    manifest = store.read_manifest(run.checkpoint(step))
    if manifest is None:
        raise DamagedError(f"{run.checkpoint(step)}: no manifest; delete this folder and run the step again")
    return manifest


def optimizer_tensors(model: LanguageModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of the optimizer as tensors named ``<quantity>/<parameter>``."""
    return {
        f"{quantity}/{name}": tensor
        for name, parameter in model.named_parameters()
        for quantity, tensor in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(
    model: LanguageModel, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Replace the state of the optimizer by `tensors`, named as `optimizer_tensors` names them."""
    parameters = dict(model.named_parameters())
    states: dict[Tensor, dict[str, Any]] = {parameter: {} for parameter in parameters.values()}
    for key, tensor in tensors.items():
        quantity, _, name = key.partition("/")
        states[parameters[name]][quantity] = tensor.to(parameters[name].device)
    optimizer.state.clear()
    optimizer.state.update(states)
