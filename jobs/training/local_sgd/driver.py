"""Training in rounds of local steps: what the driver does.

In a round every worker trains on its slices of the global batches from the same weights, as a task of an ordinary
stage (`task.py`). Then the driver takes the mean of the changes as the gradient of an outer optimizer (DiLoCo,
arXiv:2311.08105; averaging is learning rate 1 and no momentum). Changes are read one worker after another, so the
driver holds no more for many workers than for one.

The end of a round is a checkpoint, whose optimizer is the outer one. A driver that is killed before it begins the round
anew, and finds what its workers have committed.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load, save

from jobs.config import Config, TrainConfig
from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join
from jobs.training.baselines import baselines
from jobs.training.checkpoint import (
    MODEL,
    Checkpoints,
    TrainingState,
    latest_checkpoint,
    load_checkpoint,
)
from jobs.training.data import TrainingData
from jobs.training.evaluate import Score, figures
from jobs.training.journal import Journal
from jobs.training.local_sgd.compression import decode
from jobs.training.local_sgd.rows import RoundResult, merged_rows
from jobs.training.local_sgd.task import (
    DELTA,
    STATE,
    Round,
    forget_states,
    result_folder,
    round_steps,
    train_part,
    validate_part,
)
from jobs.training.metrics import Row
from jobs.training.schedule import Schedule
from jobs.training.stopping import has_stopped_improving
from jobs.training.worker import peak_resident_bytes, settings_hash, start_model

log = logging.getLogger(__name__)

FIRST_TIMED_STEPS = 10  # of a run that ends by seconds, before its speed is known

Item = TypeVar("Item")
Result = TypeVar("Result")


class Tasks(Protocol):
    """What rounds ask of the place where they run (`jobs.engine.base`)."""

    name: str

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item."""

    def task_threads(self, num_tasks: int) -> int:
        """Threads for each of so many tasks."""


class Rounds:
    """Trains a run by `average` or `diloco` from its latest checkpoint on, until its schedule is over."""

    def __init__(self, run: Run, config: Config, windows_fingerprint: str, tasks: Tasks) -> None:
        self.run_folder, self.config, self.tasks = run, config, tasks
        self.fingerprint = windows_fingerprint
        self.data = TrainingData.open(Lake(run.lake_uri), windows_fingerprint)
        self.schedule = Schedule.of(config.train, self.data.train.num_windows, self.data.train.size)
        self.model = start_model(run, config, self.data.shape)
        self.baselines = baselines(self.model, self.data, config.train.eval_windows)
        self.outer = outer_optimizer(self.model, config.train)
        self.checkpoints = Checkpoints(run, config.train)
        self.journal = Journal(run, self.schedule)
        self.training = _name_training(run)
        self.results: list[RoundResult] = []
        self.copies: str | None = None
        self.state = self._resume()
        self._started = time.monotonic() - self.state.seconds
        self._seconds_per_step = self.state.seconds / self.state.steps if self.state.steps else None

    def run(self, is_told_to_end: Callable[[], bool]) -> dict[str, Any]:
        """Train all rounds that are left, or until this process is told to end; return what metrics do not tell."""
        while not (self._is_over() or is_told_to_end()):
            self._round()
        return {
            "is_complete": self._is_over(),
            "num_parameters": self.model.num_parameters,
            **{key: value for each in self.results for key, value in (("dtype", each.dtype), ("device", each.device))},
            "peak_resident_bytes": max([peak_resident_bytes(), *(each.peak_resident_bytes for each in self.results)]),
            "stopped_early": has_stopped_improving(self.state, self.config.train),
            "best_step": self.state.best_step,
            "best_valid_loss": self.state.best_valid_loss,
        }

    def _resume(self) -> TrainingState:
        """Load the latest checkpoint, or write the first one; tell again what its round may not have told."""
        settings = settings_hash(self.config, self.fingerprint)
        step = latest_checkpoint(self.run_folder)
        if step is None:
            state = TrainingState(settings)
            self.checkpoints.write(state, self.model, self.outer)
            return state
        state = load_checkpoint(self.run_folder, step, settings, self.model, self.outer)
        if step <= self.config.train.allreduce_steps:
            self.outer.state.clear()  # the checkpoint of the warm-up holds the inner optimizer's
            return state
        log.info("resuming from the round that ended with step %d", step)
        names = store.list_folders(self.run_folder.rounds)
        self.copies = next((name for name in reversed(names) if self._has_copies(name)), None)
        for name in names:
            if round_steps(name)[1] == step:
                self.results = self._results(name)
        return state

    def _has_copies(self, name: str) -> bool:
        manifest = store.read_manifest(result_folder(self.run_folder, name, 0))
        return manifest is not None and bool(manifest.entries(STATE))

    def _round(self) -> None:
        """Train a round: the workers' steps, the outer step, validation, metrics, a checkpoint."""
        work = self._plan()
        started = time.monotonic()
        epoch = work.last_step * self.config.train.batch_size / self.data.train.num_windows
        steps = f"steps {work.first_step + 1} to {work.last_step}, to epoch {epoch:.3f}"
        self._map(partial(train_part, work=work), steps)
        self._outer_step(work.name)
        seconds = time.monotonic() - self._started
        for _ in range(work.first_step, work.last_step):
            self.state.advance(self.config.train.batch_size * self.data.train.size, seconds)
        rows = merged_rows(self.results, seconds, seconds - work.seconds, one_by_one=self.tasks.name == "inline")
        every = self.config.train.eval_every
        if work.last_step // every > work.first_step // every or self._is_over():
            rows[-1] |= self._validate(work, rows[-1])
        self._write(work, rows)
        self._seconds_per_step = (time.monotonic() - started) / (work.last_step - work.first_step)

    def _write(self, work: Round, rows: list[Row]) -> None:
        """Write metrics and checkpoint of a round; remove what earlier rounds left."""
        parameters = list(self.model.parameters())
        momenta = [tensor for each in self.outer.state.values() for tensor in each.values()]
        rows[-1]["sync_bytes"] += sum(parameter.nbytes for parameter in parameters)
        rows[-1]["state_bytes"] += sum(tensor.nbytes for tensor in momenta)
        for step, row in enumerate(rows, work.first_step + 1):
            self.journal.add(self._of_step(step) | row)
        self.journal.flush()
        self.checkpoints.write(self.state, self.model, self.outer)
        if work.copies_state:
            self.copies = work.name
        for name in store.list_folders(self.run_folder.rounds):
            if name not in (work.name, self.copies):
                store.delete_folder(join(self.run_folder.rounds, name))

    def _plan(self) -> Round:
        """The next round: so many steps that neither the schedule nor the time is overrun by much."""
        config, step = self.config.train, self.state.steps
        last_step = min(self._next_sync(step), self.schedule.total_steps)
        if config.max_seconds is not None:
            left = config.max_seconds - self.state.seconds
            speed = self._seconds_per_step
            last_step = min(last_step, step + (math.ceil(left / speed) if speed else FIRST_TIMED_STEPS))
        manifest = store.read_manifest(self.run_folder.checkpoint(step))
        assert manifest is not None
        return Round(
            training=self.training,
            first_step=step,
            last_step=last_step,
            workers=config.workers,
            weights_hash=manifest.entries(MODEL)[0].sha256,
            seconds=self.state.seconds,
            seconds_per_step=self._seconds_per_step or 0.0,
            threads=self.tasks.task_threads(config.workers),
            copies=self.copies,
            copies_state=_number(config, last_step) % config.state_every == 0,
        )

    def _next_sync(self, step: int) -> int:
        """The step at which the round after `step` ends."""
        config = self.config.train
        if config.sync_every:
            return step + config.sync_every
        epoch = step * config.batch_size // self.data.train.num_windows
        return max(step + 1, math.ceil((epoch + 1) * self.data.train.num_windows / config.batch_size))

    def _outer_step(self, name: str) -> None:
        """Step along the mean of the workers' changes, which are read one after another."""
        self.results = self._results(name)
        self.outer.zero_grad()
        parameters = dict(self.model.named_parameters())
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for rank, result in enumerate(self.results):
            tensors = load(store.read_file(result_folder(self.run_folder, name, rank), result.delta))
            for key, parameter in parameters.items():
                assert parameter.grad is not None
                parameter.grad.sub_(decode(key, tensors.__getitem__), alpha=1 / len(self.results))
        self.outer.step()
        self.outer.zero_grad()

    def _results(self, name: str) -> list[RoundResult]:
        """What the workers of a round committed."""
        results = []
        for rank in range(round_steps(name)[2]):
            folder = result_folder(self.run_folder, name, rank)
            manifest = store.read_manifest(folder)
            if manifest is None:
                raise DamagedError(f"{folder}: this worker's result is missing; run the step again")
            results.append(RoundResult(manifest.entries(DELTA)[0], **manifest.counts))
        return results

    def _of_step(self, step: int) -> Row:
        batch_size = self.config.train.batch_size
        return {
            "step": step,
            "epoch": step * batch_size / self.data.train.num_windows,
            "tokens": step * batch_size * self.data.train.size,
            **self.baselines,
        }

    def _validate(self, work: Round, row: Row) -> Row:
        """Validate the weights after a round, each worker its share; what travels is added to the round's `row`."""
        data = save(dict(self.model.state_dict()))
        weights = store.write_file(join(self.run_folder.rounds, work.name), MODEL, data)
        parts = self._map(partial(validate_part, weights=weights, work=work), f"validate step {work.last_step}")
        row["sync_bytes"] += (1 + work.workers) * weights.size
        valid, train = (sum(side, start=Score(0.0, 0.0)) for side in zip(*parts, strict=True))
        self.state.saw(valid.loss)
        return figures(self.data, self.model.loss_unit, valid, train)

    def _is_over(self) -> bool:
        over = self.schedule.is_over(self.state.steps, self.state.seconds)
        return over or has_stopped_improving(self.state, self.config.train)

    def _map(self, part: Callable[..., Result], description: str) -> list[Result]:
        function = partial(part, run=self.run_folder, config=self.config, windows_fingerprint=self.fingerprint)
        return self.tasks.map(function, range(self.config.train.workers), description)


def forget(run: Run, workers: int, tasks: Tasks) -> None:
    """Remove what rounds leave that have ended, in the lake and on the machines that can be reached."""
    tasks.map(partial(forget_states, training=_name_training(run)), range(workers), "forget optimizer states")
    store.delete_folder(run.rounds)


def outer_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD on the mean change: with Nesterov momentum for DiLoCo, a plain sum for averaging."""
    if config.strategy == "average":
        return torch.optim.SGD(model.parameters(), lr=1.0)
    momentum = config.outer_momentum
    return torch.optim.SGD(model.parameters(), lr=config.outer_learning_rate, momentum=momentum, nesterov=momentum > 0)


def _number(config: TrainConfig, last_step: int) -> int:
    """A round's number, or the step where rounds have no fixed length."""
    return last_step // config.sync_every if config.sync_every else last_step


def _name_training(run: Run) -> str:
    """A name for this training that no other has, under which machines keep its optimizer states."""
    uri = join(run.train, "training.id")
    store.publish(uri, uuid.uuid4().hex.encode())
    return store.read_bytes(uri).decode()
