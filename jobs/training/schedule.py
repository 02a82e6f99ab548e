"""How long training lasts, and its learning rate: linear warm-up, then a cosine (arXiv:1608.03983) to a floor.

Where `train.max_seconds` ends a run before its last step, the cosine must end with it. So it follows the larger of two
shares: of the steps and of the seconds; both only grow, so the learning rate never rises after the warm-up. While
seconds are not the binding limit they have no influence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """When to stop, and how fast to learn until then."""

    peak: float
    floor_ratio: float
    warmup_steps: int
    total_steps: int
    max_seconds: float | None

    @classmethod
    def of(cls, config: TrainConfig, num_windows: int, window_size: int) -> Schedule:
        """The schedule of a run over `num_windows` windows of `window_size` tokens."""
        total_steps = math.ceil(round(config.epochs * num_windows / config.batch_size, 6))
        if config.max_tokens is not None:
            total_steps = min(total_steps, math.ceil(config.max_tokens / (config.batch_size * window_size)))
        warmup_steps = min(config.warmup_steps, total_steps // 10)
        return cls(
            config.learning_rate, config.min_learning_rate_ratio, warmup_steps, max(1, total_steps), config.max_seconds
        )

    def progress(self, steps: int, seconds: float) -> float:
        """Share of the run, 0 to 1, that is done after `steps` and `seconds`."""
        share_of_time = seconds / self.max_seconds if self.max_seconds else 0.0
        return min(1.0, max(steps / self.total_steps, share_of_time))

    def is_over(self, steps: int, seconds: float) -> bool:
        """Whether nothing is left to do."""
        return self.progress(steps, seconds) >= 1.0

    def learning_rate(self, steps: int, seconds: float) -> float:
        """For the step that follows on `steps` and `seconds`: warm-up times cosine."""
        warmup = min(1.0, (steps + 1) / (self.warmup_steps + 1))
        cosine = (1 + math.cos(math.pi * self.progress(steps, seconds))) / 2
        return self.peak * warmup * (self.floor_ratio + (1 - self.floor_ratio) * cosine)
