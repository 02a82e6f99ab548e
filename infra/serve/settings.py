"""Settings of the service, which are options of ``nightjar serve``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the service does at most."""

    max_batch: int = 32
    """Continuations that are generated together."""
    max_queue: int = 256
    """Continuations that wait for a place in the batch. Further requests are refused."""
    max_tokens: int = 1024
    """Tokens of a continuation."""
    timeout_seconds: float = 120
    """Time of a request, from its arrival to its last token."""

    @property
    def max_choices(self) -> int:
        """Return the number of continuations that run or wait at the same time."""
        return self.max_batch + self.max_queue
