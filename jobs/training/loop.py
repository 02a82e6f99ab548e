"""The all-reduce loop: synchronous data-parallel training, one global batch in each step.

Every worker runs the loop. Each computes the gradient of its share of the batch, one all-reduce sums the gradients, and
all take the same optimizer step. So the weights stay bitwise equal on all workers, and equal the weights that a single
worker would get, but for rounding.

The all-reduce also carries the loss, rank 0's training time and a stop flag. So all workers decide alike when to stop.
"""

from __future__ import annotations

import time

import torch

from jobs.metrics.training import BatchRow, Quality
from jobs.training.checkpoint import Checkpoints, TrainingState
from jobs.training.evaluate import baselines, evaluate
from jobs.training.job import TrainingJob
from jobs.training.metrics import Journal
from jobs.training.order import batch_of_step
from jobs.training.step import Trainer, train_step
from jobs.training.supervision.shutdown import ShutdownSignal


class Loop:
    """Trains from `state` on; writes metrics, and validates and writes checkpoints at their intervals."""

    def __init__(self, job: TrainingJob, trainer: Trainer, state: TrainingState, shutdown: ShutdownSignal) -> None:
        self._trainer, self._state, self._shutdown = trainer, state, shutdown
        self._config = trainer.config
        self._skipped_batches = job.skipped_batches
        self._baselines = baselines(trainer.learner.model, trainer.data, self._config.eval_windows)
        self._journal = Journal(job.run, trainer.schedule) if trainer.group.is_first else None
        self._checkpoints = Checkpoints(job.run, self._config)
        self._must_stop = False
        self._started = time.monotonic() - state.seconds

    def run(self, until: int | None = None) -> bool:
        """Take all steps that are left; validate and write checkpoints in between and at the end.

        Args:
            until: Stop after this step, if the schedule is not over before.

        Returns:
            True if the schedule, or `until`, was reached. False if a worker was asked to shut down; then all workers
            have stopped after the same step.
        """
        while not (self._is_over(until) or self._must_stop):
            row, quality = self._step(), self._baselines
            if self._state.steps % self._config.eval_every == 0 or self._is_over(until):
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
        quality = evaluate(self._trainer.learner, self._trainer.data, self._config.eval_windows, self._trainer.group)
        self._state.add_validation(quality["valid_loss"])
        return quality

    def _write_checkpoint(self, journal: Journal) -> None:
        self._trainer.watchdog.beat(f"the checkpoint after step {self._state.steps}")
        journal.flush()  # no checkpoint may be ahead of its metrics
        self._checkpoints.write(self._state, self._trainer.learner.model, self._trainer.learner.optimizer)
