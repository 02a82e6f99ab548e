"""The driver of training in rounds of local steps.

In a round, every worker trains from the same weights on its shares of the global batches, as an ordinary task of the
engine (`task.py`). The driver then takes the mean of the weight deltas as the gradient of an outer optimizer (DiLoCo,
arXiv:2311.08105). For parameter averaging, the outer learning rate is 1, without momentum.

Each round ends with a checkpoint, which holds the state of the outer optimizer. If the driver is killed, its next
attempt repeats the round after the latest checkpoint, and uses the results that workers have already committed.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable
from functools import partial

import torch
from safetensors.torch import load, save

from jobs.config import TrainConfig
from jobs.engine.base import Engine, Result
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.uri import join
from jobs.metrics.columns import Quality
from jobs.training.checkpoint import MODEL, Checkpoints, TrainingState, latest_checkpoint, load_checkpoint
from jobs.training.evaluate import baselines, to_metrics
from jobs.training.job import TrainingJob, TrainingResult
from jobs.training.learner import choose_device, choose_dtype
from jobs.training.local_sgd.round import (
    STATE,
    RoundPlan,
    RoundResult,
    RoundRow,
    decode,
    merge_rows,
    read_results,
    result_folder,
)
from jobs.training.local_sgd.task import clear_cache, train_part, validate_part
from jobs.training.machine import this_machine
from jobs.training.memory import peak_resident_bytes
from jobs.training.metrics_writer import MetricsWriter
from jobs.training.supervision.shutdown import ShutdownSignal
from jobs.training.warm_start import initial_model

log = logging.getLogger(__name__)

FIRST_TIMED_STEPS = 10
"""Number of steps in the first round of a run with a time limit, when the duration of a step is not known yet."""


class Rounds:
    """Trains a run with the strategy `average` or `diloco`, from its latest checkpoint on."""

    def __init__(self, job: TrainingJob, engine: Engine) -> None:
        self._job, self._engine = job, engine
        self._run, self._config = job.run, job.config.train
        self._data = job.open_data()
        self._schedule = job.schedule(self._data.train)
        self._model = initial_model(job, self._data.shape)
        self._baselines = baselines(self._model, self._data, self._config.eval_windows)
        self._outer = outer_optimizer(self._model, self._config)
        self._checkpoints = Checkpoints(job.run, self._config)
        self._journal = MetricsWriter(job.run, self._schedule)
        self._training_id = _training_id(job.run)
        self._results: list[RoundResult] = []
        self._peak_bytes = 0
        self._copied_round: str | None = None
        self._state = self._resume()
        self._started = time.monotonic() - self._state.seconds
        self._seconds_per_step = self._state.seconds / self._state.steps if self._state.steps else None

    def run(self, shutdown: ShutdownSignal) -> TrainingResult:
        """Train all rounds that are left, or until this process receives a shutdown signal."""
        while not (self._state.is_over(self._schedule) or shutdown.is_received):
            self._train_round()
        device = choose_device(0)  # the driver's device, used if no worker has trained in a round
        last = self._results[-1] if self._results else None
        return TrainingResult(
            is_complete=self._state.is_over(self._schedule),
            num_parameters=self._model.num_parameters,
            dtype=last.dtype if last else str(choose_dtype(self._config.dtype, device)).removeprefix("torch."),
            device=last.device if last else device.type,
            peak_resident_bytes=max(peak_resident_bytes(), self._peak_bytes),
            stopped_early=self._state.has_stopped_improving(self._schedule),
            stopped_by_time=self._schedule.is_ended_by_time(self._state.steps, self._state.seconds),
            stopped_by_budget=self._schedule.is_ended_by_budget(self._state.steps, self._state.seconds),
            best_step=self._state.best_step,
            best_valid_loss=self._state.best_valid_loss,
            machine=last.machine if last else this_machine(device),
        )

    def _resume(self) -> TrainingState:
        """Load the latest checkpoint, or write the first one. Workers read the weights from the checkpoint."""
        settings = self._job.settings_hash()
        step = latest_checkpoint(self._run)
        if step is None:
            state = TrainingState(settings)
            self._checkpoints.write(state, self._model, self._outer)
            return state
        state = load_checkpoint(self._run, step, settings, self._model, self._outer)
        if step <= self._config.allreduce_steps:
            self._outer.state.clear()  # the warm-up's checkpoint has the state of the workers' optimizer
            return state
        log.info("resuming from the round that ended with step %d", step)
        names = store.list_folders(self._run.rounds)
        self._copied_round = next((name for name in reversed(names) if self._has_copies(name)), None)
        for name in names:
            if int(name.split("-")[1]) == step:
                self._read_results(name)
        return state

    def _read_results(self, name: str) -> None:
        """Read the workers' results of the round in the folder `name`."""
        self._results = read_results(self._run, name)
        self._peak_bytes = max(self._peak_bytes, *(each.peak_resident_bytes for each in self._results))

    def _has_copies(self, name: str) -> bool:
        manifest = store.read_manifest(result_folder(self._run, name, 0))
        return manifest is not None and bool(manifest.entries(STATE))

    def _train_round(self) -> None:
        plan = self._plan()
        started = time.monotonic()
        epoch = self._data.position(plan.last_step, self._config.batch_size)["epoch"]
        steps = f"steps {plan.first_step + 1} to {plan.last_step}, to epoch {epoch:.3f}"
        self._map(partial(train_part, plan=plan), steps)
        self._read_results(plan.name)
        self._outer_step(plan.name)
        seconds = time.monotonic() - self._started
        for _ in range(plan.first_step, plan.last_step):
            self._state.add_step(num_tokens=self._config.batch_size * self._data.train.size, seconds=seconds)
        rows = merge_rows(self._results, seconds, seconds - plan.seconds, one_by_one=self._engine.name == "inline")
        num_evals, quality = self._schedule.num_evals, self._baselines
        if num_evals(plan.last_step) > num_evals(plan.first_step) or self._state.is_over(self._schedule):
            quality = quality | self._validate(plan, rows[-1])
        self._write(plan, rows, quality)
        self._seconds_per_step = (time.monotonic() - started) / (plan.last_step - plan.first_step)

    def _plan(self) -> RoundPlan:
        config, step = self._config, self._state.steps
        last_step = min(self._next_sync(step), self._schedule.total_steps)
        if self._schedule.max_seconds is not None:
            seconds_left, per_step = self._schedule.max_seconds - self._state.seconds, self._seconds_per_step
            last_step = min(last_step, step + (math.ceil(seconds_left / per_step) if per_step else FIRST_TIMED_STEPS))
        manifest = store.read_manifest(self._run.checkpoint(step))
        assert manifest is not None
        # A round of one epoch has no number, so the last step decides whether it copies the states.
        number = last_step // config.sync_every if config.sync_every else last_step
        return RoundPlan(
            training_id=self._training_id,
            first_step=step,
            last_step=last_step,
            workers=config.workers,
            weights_hash=manifest.entry(MODEL).sha256,
            seconds=self._state.seconds,
            seconds_per_step=self._seconds_per_step or 0.0,
            threads=self._engine.task_threads(config.workers),
            copied_round=self._copied_round,
            copies_state=number % config.state_every == 0,
        )

    def _next_sync(self, step: int) -> int:
        if self._schedule.record:
            return self._schedule.record.round_end(step)
        config, num_windows = self._config, self._data.train.num_windows
        if config.sync_every:
            return step + config.sync_every
        epoch = step * config.batch_size // num_windows
        return max(step + 1, math.ceil((epoch + 1) * num_windows / config.batch_size))

    def _outer_step(self, name: str) -> None:
        """Take a step of the outer optimizer along the mean of the workers' weight deltas.

        Only one delta at a time is in memory.
        """
        parameters = dict(self._model.named_parameters())
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for rank, result in enumerate(self._results):
            tensors = load(store.read_file(result_folder(self._run, name, rank), result.delta))
            for key, parameter in parameters.items():
                assert parameter.grad is not None
                parameter.grad.sub_(decode(key, tensors.__getitem__), alpha=1 / len(self._results))
        self._outer.step()
        self._outer.zero_grad()

    def _validate(self, plan: RoundPlan, row: RoundRow) -> Quality:
        """Return the validation metrics after a round, and add the bytes sent for them to `row`.

        Each worker evaluates its share of the windows.
        """
        data = save(dict(self._model.state_dict()))
        weights = store.write_file(join(self._run.rounds, plan.name), MODEL, data)
        parts = self._map(partial(validate_part, weights=weights, plan=plan), f"validate step {plan.last_step}")
        row["sync_bytes"] += (1 + plan.workers) * weights.size
        valid, train = (sum(side, start=torch.zeros(2)) for side in zip(*parts, strict=True))
        self._state.add_validation(valid[0].item())
        return to_metrics(self._data, self._model.loss_unit, valid, train)

    def _write(self, plan: RoundPlan, rows: list[RoundRow], quality: Quality) -> None:
        """Write the metrics and the checkpoint of a round, and delete earlier rounds.

        `quality` was measured after the last step of the round. The latest round with copies of the optimizer states is
        kept.
        """
        rows[-1]["sync_bytes"] += sum(parameter.nbytes for parameter in self._model.parameters())
        momenta = [tensor for state in self._outer.state.values() for tensor in state.values()]
        rows[-1]["state_bytes"] += sum(tensor.nbytes for tensor in momenta)
        for step, row in enumerate(rows, plan.first_step + 1):
            position = self._data.position(step, self._config.batch_size)
            self._journal.add(position, quality if step == plan.last_step else self._baselines, row)
        self._journal.flush()
        self._checkpoints.write(self._state, self._model, self._outer)
        if plan.copies_state:
            self._copied_round = plan.name
        for name in store.list_folders(self._run.rounds):
            if name not in (plan.name, self._copied_round):
                store.delete_folder(join(self._run.rounds, name))

    def _map(self, part: Callable[..., Result], description: str) -> list[Result]:
        return self._engine.map(partial(part, job=self._job), range(self._config.workers), description)


def clean_up(job: TrainingJob, engine: Engine) -> None:
    """Delete what the rounds of a complete training have left in the lake and on the workers' disks."""
    clear = partial(clear_cache, training_id=_training_id(job.run))
    engine.map(clear, range(job.config.train.workers), "delete cached optimizer states")
    store.delete_folder(job.run.rounds)


def outer_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the SGD optimizer that applies the mean weight delta. It has Nesterov momentum for DiLoCo only."""
    if config.strategy == "average":
        return torch.optim.SGD(model.parameters(), lr=1.0)
    momentum = config.outer_momentum
    return torch.optim.SGD(model.parameters(), lr=config.outer_learning_rate, momentum=momentum, nesterov=momentum > 0)


def _training_id(run: Run) -> str:
    """Return the unique name of this training. The first call chooses the name."""
    uri = join(run.train, "training.id")
    store.publish(uri, uuid.uuid4().hex.encode())
    return store.read_bytes(uri).decode()
