"""The training loop: synchronous, data-parallel, one global batch a step.

Every worker runs it. Each computes the gradient of its slice of the batch, the gradients are summed over the workers,
and all take the same optimizer step: so the weights stay bitwise equal, and equal what one worker alone would get, but
for rounding. Three numbers ride along in the sum: the loss, and by what all decide alike: the first worker's clock, and
how many workers were told to end.
"""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Sequence

import torch

from jobs.config import TrainConfig
from jobs.errors import DivergedError
from jobs.lake.layout import Run
from jobs.training.baselines import baselines
from jobs.training.checkpoint import Checkpoints, TrainingState
from jobs.training.data import TrainingData
from jobs.training.evaluate import evaluate
from jobs.training.journal import Journal
from jobs.training.learner import Learner
from jobs.training.metrics import Row, StepMeter
from jobs.training.order import Ids, SampleOrder, batch_of_step, seed_step
from jobs.training.process_group import Group
from jobs.training.schedule import Schedule
from jobs.training.stopping import has_stopped_improving
from jobs.training.supervision.guards import Guards

log = logging.getLogger(__name__)


class Loop:
    """Trains `learner` on `data` from `state` on, until its schedule is over."""

    def __init__(
        self,
        run: Run,
        config: TrainConfig,
        data: TrainingData,
        learner: Learner,
        state: TrainingState,
        group: Group,
        guards: Guards,
    ) -> None:
        self.config, self.data = config, data
        self.learner, self.state, self.group, self.guards = learner, state, group, guards
        self.baselines = baselines(learner.model, data, config.eval_windows)
        self.order = SampleOrder(data.train.per_shard, config.seed)
        self.skipped: Sequence[int] = ()
        self.schedule = Schedule.of(config, data.train.num_windows, data.train.size)
        self.until = self.schedule.total_steps
        self.journal = Journal(run, self.schedule) if group.is_first else None
        self.checkpoints = Checkpoints(run, config)
        self.is_told_to_end = False
        self.tokens_per_step = config.batch_size * data.train.size
        self._started = time.monotonic() - state.seconds

    def run(self, until: int | None = None, skipped: Sequence[int] = ()) -> bool:
        """Take all steps that are left; validate and write checkpoints in between and at the end.

        Args:
            until: stop when so many are done, if that is sooner.
            skipped: numbers of batches that are left out.

        Returns:
            Whether the schedule is over; else a worker was told to end, and all have stopped after the same step.
        """
        self.until = self.schedule.total_steps if until is None else until
        self.skipped = skipped
        while not (self._is_over() or self.is_told_to_end):
            row = self._step()
            if self.state.steps % self.config.eval_every == 0 or self._is_over():
                row |= self._validate()
            if self.journal:
                self.journal.add(row)
                self._write_checkpoint(self.journal)
        return self._is_over()

    def _step(self) -> Row:
        """Train on the next global batch; return the step's metrics."""
        meter = StepMeter()
        steps, batch_size = self.state.steps, self.config.batch_size
        self.guards.watchdog.beat(f"step {steps + 1}")
        seed_step(self.config.seed, steps, self.group.rank)
        batch = batch_of_step(steps, self.skipped)
        ids = self.order.take(batch * batch_size, (batch + 1) * batch_size)
        mine = self.data.train.read(ids[self.group.share(batch_size)])
        part_of_loss = self.learner.backward(mine, batch_size * self.learner.model.targets_per_window)
        with meter.synchronizing(self.group.sum_bytes(self.learner.gradients.buffer)):
            loss, seconds = self._sum_over_workers(part_of_loss)
        norm = self.learner.update(self.schedule.learning_rate(steps, seconds))
        check_loss(loss, norm, steps + 1, ids, self.config, self.state.mean_loss)
        self.state.took(loss)
        self.state.advance(self.tokens_per_step, seconds)
        return {
            "step": self.state.steps,
            "epoch": self.state.steps * batch_size / self.data.train.num_windows,
            "tokens": self.state.tokens,
            "loss": loss,
            **self.baselines,
            "learning_rate": self.learner.learning_rate,
            "gradient_norm": norm,
            "gradient_norms": self.learner.gradient_norms,
            "seconds": seconds,
            **meter.row(self.tokens_per_step),
            "gpu_bytes": self.learner.gpu_bytes,
            "samples": samples_mark(ids),
        }

    def _sum_over_workers(self, part_of_loss: float) -> tuple[float, float]:
        """Sum the gradients; return the batch's mean loss and the first worker's clock."""
        gradients = self.learner.gradients
        clock = time.monotonic() - self._started if self.group.is_first else 0.0
        gradients.riders.copy_(torch.tensor([part_of_loss, clock, self.guards.notice.given.is_set()]))
        self.guards.watchdog.beat_waiting(f"step {self.state.steps + 1}")
        self.group.sum(gradients.buffer)
        loss, seconds, told_to_end = gradients.riders.tolist()
        self.is_told_to_end = told_to_end > 0
        return loss, seconds

    def _validate(self) -> Row:
        self.guards.watchdog.beat(f"the validation after step {self.state.steps}")
        figures = evaluate(self.learner, self.data, self.config.eval_windows, self.group)
        self.state.saw(figures["valid_loss"])
        return figures

    def _write_checkpoint(self, journal: Journal) -> None:
        if self.checkpoints.is_due(self.state) or self._is_over() or self.is_told_to_end:
            self.guards.watchdog.beat(f"the checkpoint after step {self.state.steps}")
            journal.flush()
            self.checkpoints.write(self.state, self.learner.model, self.learner.optimizer)

    def _is_over(self) -> bool:
        over = self.state.steps >= self.until or self.schedule.is_over(self.state.steps, self.state.seconds)
        return over or has_stopped_improving(self.state, self.config)


def check_loss(
    loss: float, norm: float, step: int, ids: Ids, config: TrainConfig, mean_loss: float | None = None
) -> None:
    """Stop a training that has diverged.

    Raises:
        DivergedError: if `loss` or the gradient's `norm` at `step` is not finite, or the loss is too far above the mean
            of those before it; with the windows `ids`.
    """
    has_risen = mean_loss is not None and config.max_loss_rise is not None and loss > mean_loss + config.max_loss_rise
    if math.isfinite(loss) and math.isfinite(norm) and not has_risen:
        return
    log.error("windows of step %d: %s", step, ids.tolist())
    shown = ", ".join(map(str, ids[:8])) + (", ... (all in the log)" if len(ids) > 8 else "")
    raise DivergedError(
        f"training diverged at step {step}: loss {loss}, gradient norm {norm}; training windows {shown};"
        f" lower train.learning_rate ({config.learning_rate:g}) or look at these windows",
        step,
    )


def samples_mark(ids: Ids) -> str:
    """A mark that tells whether two runs took the same windows."""
    return f"{zlib.crc32(ids.tobytes()):08x}"
