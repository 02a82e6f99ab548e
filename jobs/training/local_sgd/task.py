"""What a worker does in a round: local steps from the round's weights on its slices, and one committed result.

A result is a folder below ``<run>/train/rounds/<round>/<rank>/`` with the change of the weights, now and then a copy of
the optimizer state, and a manifest that is published only if absent: of two attempts of a task, one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import load, save

from jobs.config import Config
from jobs.engine.base import crash_report_file
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join
from jobs.model.kinds import build_model
from jobs.training.checkpoint import (
    MODEL,
    OPTIMIZER,
    load_optimizer_tensors,
    optimizer_tensors,
    read_part,
)
from jobs.training.data import TrainingData
from jobs.training.evaluate import Score, scores
from jobs.training.learner import Learner, choose_device
from jobs.training.local_sgd.compression import encode
from jobs.training.local_sgd.optimizer_cache import LocalStates, Tensors
from jobs.training.loop import check_loss, samples_mark
from jobs.training.metrics import Row, StepMeter
from jobs.training.order import SampleOrder, seed_step
from jobs.training.process_group import Part
from jobs.training.schedule import Schedule
from jobs.training.supervision.watchdog import Watchdog, watched
from jobs.training.worker import peak_resident_bytes

DELTA, STATE = "delta", "state"


@dataclass(frozen=True)
class Round:
    """A round of training, the same for all its workers.

    `first_step` steps are done before it and `last_step` after it. `weights_hash` is that of the weights it starts
    from. For the learning rate, step i is taken at ``seconds + i * seconds_per_step``. `copies` is the name of the
    latest round that left copies of the optimizer state.
    """

    training: str
    first_step: int
    last_step: int
    workers: int
    weights_hash: str
    seconds: float
    seconds_per_step: float
    threads: int
    copies: str | None
    copies_state: bool

    @property
    def name(self) -> str:
        """The round's folder below ``rounds``."""
        return f"{self.first_step:08d}-{self.last_step:08d}-{self.workers:04d}-{self.weights_hash[:12]}"


def round_steps(name: str) -> tuple[int, int, int]:
    """First step, last step and number of workers of the round `name`."""
    first, last, workers, _ = name.split("-")
    return int(first), int(last), int(workers)


def result_folder(run: Run, name: str, rank: int) -> str:
    """Where a worker of the round `name` leaves its result."""
    return join(run.rounds, name, f"{rank:04d}")


def train_part(rank: int, work: Round, run: Run, config: Config, windows_fingerprint: str) -> None:
    """Train a worker's part of a round and commit the result, unless another attempt has.

    Raises:
        NightjarError: if training diverged, or the data or the checkpoint cannot be used.
    """
    folder = result_folder(run, work.name, rank)
    if store.read_manifest(folder) is not None:
        return
    torch.set_num_threads(work.threads)
    with watched(rank, config.train.step_timeout_seconds, crash_report_file()) as watchdog:
        _train_part(folder, _Worker(rank, work, run, config, windows_fingerprint, watchdog))


def _train_part(folder: str, worker: _Worker) -> None:
    config, work = worker.config, worker.work
    facts = worker.restore()
    before = {name: tensor.detach().clone() for name, tensor in worker.learner.model.named_parameters()}
    facts["rows"] = worker.train()
    deltas = {name: tensor.detach() - before[name] for name, tensor in worker.learner.model.named_parameters()}
    deltas = encode(deltas, config.train.delta_dtype)
    files = [_write(folder, DELTA, deltas)]
    if work.copies_state:
        files.append(_write(folder, STATE, worker.state()))
    facts |= {"copied_bytes": sum(entry.size for entry in files[1:])}
    facts |= {"device": worker.learner.device.type, "dtype": str(worker.learner.dtype).removeprefix("torch.")}
    facts["peak_resident_bytes"] = peak_resident_bytes()
    store.publish_manifest(folder, store.Manifest("round", work.weights_hash, tuple(files), facts))


def validate_part(
    rank: int, weights: store.FileEntry, work: Round, run: Run, config: Config, windows_fingerprint: str
) -> tuple[Score, Score]:
    """A worker's part of the validation of the weights that a round ended with; the parts add up."""
    torch.set_num_threads(work.threads)
    data = _data(run, windows_fingerprint)
    learner = _learner(config, data, rank)
    learner.model.load_state_dict(load(store.read_file(join(run.rounds, work.name), weights)))
    return scores(learner, data, config.train.eval_windows, Part(rank, work.workers))


def forget_states(_rank: int, training: str) -> None:
    """Remove what this machine keeps of a training that has ended."""
    LocalStates(training).forget()


class _Worker:
    """One worker in one round."""

    def __init__(
        self, rank: int, work: Round, run: Run, config: Config, windows_fingerprint: str, watchdog: Watchdog
    ) -> None:
        self.rank, self.work, self.run, self.config = rank, work, run, config
        self.watchdog = watchdog
        self.data = _data(run, windows_fingerprint)
        self.learner = _learner(config, self.data, rank)
        self.local = LocalStates(work.training)

    def restore(self) -> dict[str, Any]:
        """Load the round's weights and the best optimizer state there is; tell what was read."""
        weights = read_part(self.run, self.work.first_step, MODEL)
        self.learner.model.load_state_dict(load(weights))
        found, state_bytes, tensors = "local", 0, self.local.read(self.rank, self.work.first_step)
        if tensors is None:
            found, data = self._from_lake()
            state_bytes, tensors = len(data), load(data) if data else {}
        load_optimizer_tensors(self.learner.model, self.learner.optimizer, tensors)
        if found == "none" and self.work.first_step == 0:
            found = "start"
        return {"weights_bytes": len(weights), "state_bytes": state_bytes, "state_from": found}

    def _from_lake(self) -> tuple[str, bytes]:
        """Where a state was found in the lake, and it."""
        if self.work.first_step == self.config.train.allreduce_steps > 0:
            return "checkpoint", read_part(self.run, self.work.first_step, OPTIMIZER)
        if self.work.copies is None:
            return "none", b""
        workers = len(store.list_folders(join(self.run.rounds, self.work.copies)))
        folder = result_folder(self.run, self.work.copies, self.rank % workers)
        manifest = store.read_manifest(folder)
        entries = manifest.entries(STATE) if manifest else []
        return ("copy", store.read_file(folder, entries[0])) if entries else ("none", b"")

    def state(self) -> Tensors:
        """What the optimizer remembers."""
        return optimizer_tensors(self.learner.model, self.learner.optimizer)

    def train(self) -> list[Row]:
        """Take the round's steps and keep the optimizer state; return the rows of this worker's part."""
        order = SampleOrder(self.data.train.per_shard, self.config.train.seed)
        schedule = Schedule.of(self.config.train, self.data.train.num_windows, self.data.train.size)
        rows = [self._step(step, order, schedule) for step in range(self.work.first_step, self.work.last_step)]
        self.local.write(self.rank, self.work.last_step, self.work.first_step, self.state())
        return rows

    def _step(self, step: int, order: SampleOrder, schedule: Schedule) -> Row:
        """Train on this worker's slice of the global batch of `step`; `loss` is its part of that batch's mean."""
        meter = StepMeter()
        batch_size, targets = self.config.train.batch_size, self.learner.model.targets_per_window
        self.watchdog.beat(f"step {step + 1}")
        seed_step(self.config.train.seed, step, self.rank)
        ids = order.take(step * batch_size, (step + 1) * batch_size)
        mine = ids[Part(self.rank, self.work.workers).share(batch_size)]
        loss = self.learner.backward(self.data.train.read(mine), len(mine) * targets)
        seconds = self.work.seconds + (step - self.work.first_step) * self.work.seconds_per_step
        norm = self.learner.update(schedule.learning_rate(step, seconds))
        check_loss(loss, norm, step + 1, mine, self.config.train)
        return {
            "loss": loss * len(mine) / batch_size,
            "learning_rate": self.learner.learning_rate,
            "gradient_norm": norm,
            "gradient_norms": self.learner.gradient_norms,
            **meter.row(len(mine) * self.data.train.size),
            "gpu_bytes": self.learner.gpu_bytes,
            "samples": samples_mark(ids),
        }


def _write(folder: str, stem: str, tensors: Tensors) -> store.FileEntry:
    with store.create_shard(folder, stem, ".safetensors") as shard:
        shard.write(save(dict(tensors)))
    return shard.entry()


@lru_cache(maxsize=1)
def _data(run: Run, windows_fingerprint: str) -> TrainingData:
    """The dataset, opened once in a process."""
    return TrainingData.open(Lake(run.lake_uri), windows_fingerprint)


def _learner(config: Config, data: TrainingData, rank: int) -> Learner:
    return Learner(build_model(config.model, data.shape), config.train, choose_device(rank))
