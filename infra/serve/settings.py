"""Settings of the service, which are options of ``nightjar serve``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of the service."""

    max_batch: int = 32
    """The most continuations that are generated together."""
    max_queue: int = 256
    """The most continuations that wait for a place in the batch. Further requests are refused."""
    max_tokens: int = 1024
    """The most tokens of a continuation."""
    timeout_seconds: float = 120
    """The longest time of a request, from its arrival to its last token."""

    @property
    def max_choices(self) -> int:
        """Return the maximum number of continuations that run or wait at the same time."""
        return self.max_batch + self.max_queue
