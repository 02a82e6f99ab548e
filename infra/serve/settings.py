"""The limits of the service. Each is an option of ``nightjar serve``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How many continuations the service runs and queues, and how long they may be."""

    max_batch: int = 32
    """The maximum number of continuations in the batch."""
    max_queue: int = 256
    """The maximum number of continuations that wait for a place in the batch. Further requests are refused."""
    max_tokens: int = 1024
    """The maximum number of tokens of a continuation."""
    timeout_seconds: float = 120
    """The maximum time of a request, from its arrival to its last token."""

    @property
    def max_choices(self) -> int:
        """Return the maximum number of continuations that run or wait at the same time."""
        return self.max_batch + self.max_queue
