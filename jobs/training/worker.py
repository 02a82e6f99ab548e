"""One rank of an all-reduce training: synchronous data-parallel training, one global batch in each step.

Each worker computes the gradient of its share of the batch, one all-reduce sums the gradients, and all workers take the
same optimizer step. So the weights stay bitwise equal on all workers. Except for rounding, they equal the weights that
a single worker would compute.
"""

from __future__ import annotations

import logging
import time

import torch

from jobs.engine.base import WorkerContext
from jobs.metrics.columns import BatchRow, Quality
from jobs.training.checkpoint import Checkpoints, TrainingState, latest_checkpoint, load_checkpoint
from jobs.training.evaluate import baselines, scores, to_metrics
from jobs.training.job import TrainingJob, TrainingResult
from jobs.training.learner import Learner, choose_device
from jobs.training.machine import this_machine
from jobs.training.memory import keep_freed_memory, peak_resident_bytes
from jobs.training.metrics_writer import MetricsWriter
from jobs.training.order import batch_of_step
from jobs.training.process_group import Group, join_group
from jobs.training.step import Trainer, train_step
from jobs.training.supervision.shutdown import ShutdownSignal, receive
from jobs.training.supervision.watchdog import watch
from jobs.training.warm_start import initial_model

log = logging.getLogger(__name__)


def train_worker(context: WorkerContext, job: TrainingJob, until: int | None = None) -> TrainingResult:
    """Train with the other workers of the group until the schedule is over, or until `until` steps are done.

    All workers return the same result. Its `is_complete` is False if a worker received a shutdown signal.
    """
    keep_freed_memory()
    torch.set_num_threads(context.threads)  # PySpark sets OMP_NUM_THREADS=1 for any number of cores
    config = job.config.train
    device = choose_device(context.local_rank, config.device)
    # A worker that hangs is killed after `step_timeout_seconds`; until then the others must wait for it.
    group_timeout = max(config.gang_timeout_seconds, config.step_timeout_seconds + 60)
    with (
        watch(context.rank, config.step_timeout_seconds, context.crash_report) as watchdog,
        receive(job.run, is_first=context.rank == 0) as shutdown,
        join_group(context, group_timeout) as group,
    ):
        data = job.open_data()
        learner = Learner(initial_model(job, data.shape), config, device)
        state = _resume(job, learner, group)
        trainer = Trainer(job, data, learner, group, watchdog)
        is_complete = Loop(job, trainer, state, shutdown).run(until)
        return TrainingResult(
            is_complete=is_complete,
            num_parameters=learner.model.num_parameters,
            dtype=learner.dtype_name,
            device=learner.device.type,
            peak_resident_bytes=int(group.largest(peak_resident_bytes())),
            stopped_early=state.has_stopped_improving(trainer.schedule),
            stopped_by_time=trainer.schedule.is_ended_by_time(state.steps, state.seconds),
            stopped_by_budget=trainer.schedule.is_ended_by_budget(state.steps, state.seconds),
            best_step=state.best_step,
            best_valid_loss=state.best_valid_loss,
            machine=this_machine(learner.device),
        )


def _resume(job: TrainingJob, learner: Learner, group: Group) -> TrainingState:
    """Load the latest intact checkpoint, which rank 0 finds for all workers, and return its state.

    Without a checkpoint, return the initial state.
    """
    found = latest_checkpoint(job.run) if group.is_first else None
    step = int(group.largest(-1 if found is None else found))
    if step < 0:
        return TrainingState(job.settings_hash())
    if group.is_first:
        log.info("resuming from the checkpoint of step %d", step)
    return load_checkpoint(job.run, step, job.settings_hash(), learner.model, learner.optimizer)


class Loop:
    """Trains from `state` on. Writes metrics for each step, and validates and writes checkpoints when they are due.

    The all-reduce also carries the loss, rank 0's training time and a stop flag. So all workers stop after the same
    step.
    """

    def __init__(self, job: TrainingJob, trainer: Trainer, state: TrainingState, shutdown: ShutdownSignal) -> None:
        self._trainer, self._state, self._shutdown = trainer, state, shutdown
        self._config = trainer.config
        self._skipped_batches = job.skipped_batches
        self._baselines = baselines(trainer.learner.model, trainer.data, self._config.eval_windows)
        self._journal = MetricsWriter(job.run, trainer.schedule) if trainer.group.is_first else None
        self._checkpoints = Checkpoints(job.run, self._config)
        self._must_stop = False
        self._started = time.monotonic() - state.seconds

    def run(self, until: int | None) -> bool:
        """Take all steps that are left, at most up to step `until`. Return False if a shutdown signal came first."""
        num_evals = self._trainer.schedule.num_evals
        while not (self._is_over(until) or self._must_stop):
            row, quality = self._step(), self._baselines
            steps = self._state.steps
            if num_evals(steps) > num_evals(steps - 1) or self._is_over(until):
                quality = quality | self._validate()
            if self._journal:
                position = self._trainer.data.position(self._state.steps, self._config.batch_size)
                self._journal.add(position, quality, row)
                if self._checkpoints.is_due(self._state) or self._is_over(until) or self._must_stop:
                    self._write_checkpoint(self._journal)
        return self._is_over(until)

    def _is_over(self, until: int | None) -> bool:
        return self._state.is_over(self._trainer.schedule) or (until is not None and self._state.steps >= until)

    def _step(self) -> BatchRow:
        """Train on the next global batch; return the metrics of the step."""
        state = self._state
        batch = batch_of_step(state.steps, self._skipped_batches)
        row = train_step(self._trainer, state.steps, self._all_reduce, batch=batch, mean_loss=state.mean_loss)
        num_tokens = self._config.batch_size * self._trainer.data.train.size
        state.add_step(num_tokens=num_tokens, seconds=row["seconds"], loss=row["loss"])
        return row

    def _all_reduce(self, part_of_loss: float) -> tuple[float, float]:
        """Sum gradients and loss over the workers; return the batch's mean loss and rank 0's training time."""
        gradients, group = self._trainer.learner.gradients, self._trainer.group
        seconds = time.monotonic() - self._started if group.is_first else 0.0
        gradients.extra.copy_(torch.tensor([part_of_loss, seconds, self._shutdown.is_received]))
        self._trainer.watchdog.beat_waiting(f"step {self._state.steps + 1}")
        group.sum(gradients.buffer)
        loss, seconds, num_stopping = gradients.extra.tolist()
        self._must_stop = num_stopping > 0
        return loss, seconds

    def _validate(self) -> Quality:
        self._trainer.watchdog.beat(f"the validation after step {self._state.steps}")
        learner, data = self._trainer.learner, self._trainer.data
        both = scores(learner, data, self._config.eval_windows, self._trainer.group)
        quality = to_metrics(data, learner.model.loss_unit, *both)
        self._state.add_validation(quality["valid_loss"])
        return quality

    def _write_checkpoint(self, journal: MetricsWriter) -> None:
        self._trainer.watchdog.beat(f"the checkpoint after step {self._state.steps}")
        journal.flush()
        self._checkpoints.write(self._state, self._trainer.learner.model, self._trainer.learner.optimizer)
