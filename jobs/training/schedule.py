"""The length of a training and its learning-rate schedule: linear warm-up, then the decay of `train.schedule`.

If `train.max_seconds` or the budget ends a run before its last step, the decay must end at the same time. So the decay
follows the larger of two shares: the share of all steps that are done, and the share of the allowed seconds that have
passed. The warm-up takes at most a tenth of the steps, and at most a tenth of the seconds.

A replay does not use a clock: its steps and their learning rates come from the record.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.config import TrainConfig
from jobs.training.record import Record


@dataclass(frozen=True)
class Schedule:
    """The number of steps, and the learning rate at each of them."""

    config: TrainConfig
    total_steps: int
    num_windows: int
    """Number of windows in an epoch."""
    budget_seconds: float | None = None
    """Seconds of training that the budget pays for. None without a budget."""
    record: Record | None = None
    """The record of the training that a replay repeats. None if this run is not a replay."""

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        num_windows: int,
        window_size: int,
        budget_seconds: float | None = None,
        record: Record | None = None,
    ) -> Schedule:
        """Return the schedule of a run over `num_windows` windows of `window_size` tokens."""
        steps = len(record.learning_rates) if record else config.num_steps(num_windows, window_size)
        return cls(config, steps, num_windows, budget_seconds, record)

    @property
    def total_epochs(self) -> float:
        """Number of passes over the training windows."""
        return self.total_steps * self.config.batch_size / self.num_windows

    def num_evals(self, steps: int) -> int:
        """Return the number of validations that are due in the first `steps` steps.

        `train.eval_every` is the number of steps between validations. If it is 0, one is due after each epoch.
        """
        if self.config.eval_every:
            return steps // self.config.eval_every
        return min(steps, steps * self.config.batch_size // self.num_windows)

    @property
    def warmup_steps(self) -> int:
        """Steps before the highest learning rate: `train.warmup_steps`, but at most a tenth of all steps."""
        return min(self.config.warmup_steps, self.total_steps // 10)

    @property
    def max_seconds(self) -> float | None:
        """Seconds after which `train.max_seconds` or the budget ends training. None without a limit, or in a replay."""
        if self.record:
            return None
        limits = [limit for limit in (self.config.max_seconds, self.budget_seconds) if limit is not None]
        return min(limits, default=None)

    def is_ended_by_time(self, steps: int, seconds: float) -> bool:
        """Return whether `train.max_seconds` has ended a training that took `steps` steps and `seconds` seconds."""
        return self._is_ended_by(self.config.max_seconds, steps, seconds)

    def is_ended_by_budget(self, steps: int, seconds: float) -> bool:
        """Return whether the budget has ended a training that took `steps` steps and `seconds` seconds."""
        return self._is_ended_by(self.budget_seconds, steps, seconds)

    def _is_ended_by(self, limit: float | None, steps: int, seconds: float) -> bool:
        return limit is not None and limit == self.max_seconds and seconds >= limit and steps < self.total_steps

    def progress(self, steps: int, seconds: float) -> float:
        """Return the share of the training, from 0 to 1, that is done after `steps` steps and `seconds` seconds."""
        return min(1.0, max(steps / self.total_steps, self._share_of_time(seconds)))

    def is_over(self, steps: int, seconds: float) -> bool:
        """Return True if no step is left."""
        return self.progress(steps, seconds) >= 1.0

    def learning_rate(self, steps: int, seconds: float) -> float:
        """Return the learning rate of the step that follows after `steps` steps and `seconds` seconds.

        This is the highest learning rate times warm-up times decay. In a replay, return the recorded learning rate.
        """
        if self.record:
            return self.record.learning_rates[steps]
        warmup = min(1.0, max((steps + 1) / (self.warmup_steps + 1), 10 * self._share_of_time(seconds)))
        return self.config.learning_rate * warmup * self._decay(self.progress(steps, seconds))

    def _share_of_time(self, seconds: float) -> float:
        return seconds / self.max_seconds if self.max_seconds else 0.0

    def _decay(self, progress: float) -> float:
        if self.config.schedule == "exponential":
            return math.pow(self.config.decay_per_epoch, progress * self.total_epochs)
        floor = self.config.min_learning_rate_ratio
        return floor + (1 - floor) * self._shape(progress)

    def _shape(self, progress: float) -> float:
        match self.config.schedule:
            case "linear":
                return 1 - progress
            case "cosine":  # arXiv:1608.03983
                return (1 + math.cos(math.pi * progress)) / 2
            case "wsd":  # arXiv:2404.06395
                return min(1.0, (1 - progress) / self.config.decay_fraction)
            case _:
                return 1.0
