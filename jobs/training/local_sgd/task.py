"""The tasks of a round: a worker's local steps, and its share of the validation.

The manifest of a result is published only if there is none yet, so only one of two attempts at a task counts.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from jobs.engine.base import crash_report_file
from jobs.lake import store
from jobs.lake.cache import cache_folder
from jobs.lake.layout import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.uri import join
from jobs.metrics.columns import BatchRow
from jobs.model.kinds import build_model
from jobs.training.checkpoint import MODEL, OPTIMIZER, load_optimizer_tensors, optimizer_tensors, read_part
from jobs.training.evaluate import scores
from jobs.training.job import TrainingData, TrainingJob
from jobs.training.learner import Learner, choose_device
from jobs.training.local_sgd.round import DELTA, STATE, RoundPlan, RoundResult, encode, result_folder
from jobs.training.machine import this_machine
from jobs.training.memory import peak_resident_bytes
from jobs.training.process_group import LocalGroup
from jobs.training.step import Trainer, train_step
from jobs.training.supervision.watchdog import watch

log = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]


def train_part(rank: int, plan: RoundPlan, job: TrainingJob) -> None:
    """Train a worker's part of a round, from the round's weights, and commit the result.

    If another attempt has committed a result before, that result is kept.
    """
    folder = result_folder(job.run, plan.name, rank)
    if store.read_manifest(folder) is not None:
        return
    torch.set_num_threads(plan.threads)
    config, cache = job.config.train, OptimizerCache(plan.training_id)
    with watch(rank, config.step_timeout_seconds, crash_report_file()) as watchdog:
        data = _open_data(job.run.lake_uri, job.windows)
        learner = _build_learner(job, data, rank)
        model, optimizer = learner.model, learner.optimizer
        weights = read_part(job.run, plan.first_step, MODEL)
        model.load_state_dict(load(weights))
        state_from, state_bytes, state = _find_state(rank, plan, job, cache)
        load_optimizer_tensors(model, optimizer, state)

        trainer = Trainer(job, data, learner, LocalGroup(rank, plan.workers), watchdog)
        before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        rows = [_train_step(trainer, step, plan) for step in range(plan.first_step, plan.last_step)]
        deltas = {name: tensor.detach() - before[name] for name, tensor in model.named_parameters()}
        state = optimizer_tensors(model, optimizer)
        cache.write(rank, plan.last_step, plan.first_step, state)

        delta = _write(folder, DELTA, encode(deltas, config.delta_dtype))
        copies = [_write(folder, STATE, state)] if plan.copies_state else []
        result = RoundResult(
            delta=delta,
            rows=rows,
            weights_bytes=len(weights),
            state_bytes=state_bytes,
            state_from=state_from,
            copied_bytes=sum(entry.size for entry in copies),
            device=learner.device.type,
            dtype=learner.dtype_name,
            peak_resident_bytes=peak_resident_bytes(),
            machine=this_machine(learner.device),
        )
        manifest = Manifest("round", plan.weights_hash, (delta, *copies), result.to_counts())
        store.publish_manifest(folder, manifest)


def validate_part(rank: int, weights: FileEntry, plan: RoundPlan, job: TrainingJob) -> tuple[Tensor, Tensor]:
    """Return a worker's part of the scores of the round's final `weights`. The sum of all parts is the score."""
    torch.set_num_threads(plan.threads)
    data = _open_data(job.run.lake_uri, job.windows)
    learner = _build_learner(job, data, rank)
    learner.model.load_state_dict(load(store.read_file(join(job.run.rounds, plan.name), weights)))
    return scores(learner, data, job.config.train.eval_windows, LocalGroup(rank, plan.workers))


def clear_cache(_rank: int, training_id: str) -> None:
    """Delete the optimizer states of one training from the disk of this machine."""
    OptimizerCache(training_id).clear()


def _train_step(trainer: Trainer, step: int, plan: RoundPlan) -> BatchRow:
    """Take a local step. In the returned metrics, `loss` is this worker's part of the global batch's mean loss."""
    row = train_step(trainer, step, lambda loss: (loss, plan.seconds_at(step)), batch=step)
    batch_size = trainer.config.batch_size
    share = trainer.group.share(batch_size)
    row["loss"] = row["loss"] * (share.stop - share.start) / batch_size
    return row


def _find_state(rank: int, plan: RoundPlan, job: TrainingJob, cache: OptimizerCache) -> tuple[str, int, Tensors]:
    """Find an optimizer state for a worker. Return its origin, the number of bytes read from the lake, and the state.

    An optimizer state is up to twice as large as the weights, so it stays on the worker's machine after a round. A copy
    is written to the lake only every `train.state_every` rounds. The first of these states that exists is used:

    1. on this machine, the state of `rank` after the last round, else the state of another rank;
    2. the state in the checkpoint, if an all-reduce warm-up has just ended;
    3. the latest copy in the lake, some rounds old. If n workers wrote copies, use the copy of rank `rank` modulo n;
    4. no earlier state: the moments begin at zero.
    """
    cached = cache.read(rank, plan.first_step)
    if cached is not None:
        return "local", 0, cached
    if plan.first_step == job.config.train.allreduce_steps > 0:
        data = read_part(job.run, plan.first_step, OPTIMIZER)
        return "checkpoint", len(data), load(data)
    if plan.copied_round is not None:
        workers = len(store.list_folders(join(job.run.rounds, plan.copied_round)))
        folder = result_folder(job.run, plan.copied_round, rank % workers)
        manifest = store.read_manifest(folder)
        for entry in manifest.entries(STATE) if manifest else []:
            data = store.read_file(folder, entry)
            return "copy", len(data), load(data)
    return "start" if plan.first_step == 0 else "none", 0, {}


def _write(folder: str, stem: str, tensors: Tensors) -> FileEntry:
    return store.write_shard(folder, f"{stem}.safetensors", save(dict(tensors)))


@lru_cache(maxsize=1)
def _open_data(lake_uri: str, windows: str) -> TrainingData:
    return TrainingData.open(Lake(lake_uri), windows)


def _build_learner(job: TrainingJob, data: TrainingData, rank: int) -> Learner:
    return Learner(
        build_model(job.config.model, data.shape), job.config.train, choose_device(rank, job.config.train.device)
    )


class OptimizerCache:
    """The optimizer states of one training on this machine's disk."""

    def __init__(self, training_id: str) -> None:
        self._folder = cache_folder() / f"rounds-{training_id}"

    def read(self, rank: int, step: int) -> Tensors | None:
        """Return the state of `rank` after `step` steps, or else that of another rank. Return None if there is none."""
        own = self._path(rank, step)
        for path in sorted(self._folder.glob(f"{step:08d}-*.safetensors"), key=lambda path: path != own):
            try:
                return load_file(path)
            except (SafetensorError, OSError):  # another task removed it, or the disk was full
                continue
        return None

    def write(self, rank: int, step: int, previous_step: int, tensors: Tensors) -> None:
        """Write the state of `rank` after `step` steps, and delete its older states.

        The state of `previous_step` is kept for a task that repeats the round.
        """
        path = self._path(rank, step)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            save_file(dict(tensors), temporary)
            temporary.replace(path)
        except (SafetensorError, OSError) as error:
            log.warning(
                "%s: could not write the optimizer state of step %d, so the next round may use an older one: %s",
                self._folder,
                step,
                error,
            )
        finally:
            temporary.unlink(missing_ok=True)
        for other in self._folder.glob(f"*-{rank:04d}.safetensors"):
            if other not in (path, self._path(rank, previous_step)):
                other.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all states of this training."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, rank: int, step: int) -> Path:
        return self._folder / f"{step:08d}-{rank:04d}.safetensors"
