"""The clock of the embedded EMR, which tests can speed up or advance.

The server's own waits follow this clock: start times, idle timeouts, spot notices and late logs. Steps do not follow
it: a step takes as long as its processes take.
"""

from __future__ import annotations

import threading
import time
from weakref import WeakSet

from jobs.errors import InputError

MAX_ADVANCE_SECONDS = 10 * 365 * 24 * 3600.0


class Clock:
    """A clock that counts seconds since 1970, at `speed` times the speed of this machine's clock."""

    def __init__(self, speed: float = 1.0) -> None:
        self._lock = threading.Lock()
        self._conditions: WeakSet[threading.Condition] = WeakSet()
        self._start, self._real_start = time.time(), time.monotonic()
        self.speed = _checked(speed)

    def now(self) -> float:
        """Return the current time of this clock."""
        with self._lock:
            return self._now()

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`. Threads whose waiting time is then over continue at once."""
        if not 0 <= seconds <= MAX_ADVANCE_SECONDS:  # refuses NaN as well
            raise InputError(f"advance: {seconds} s is out of range; use 0 s to 10 years: the clock only moves forward")
        with self._lock:
            self._start += seconds
        self._wake()

    def set_speed(self, speed: float) -> None:
        """Let the clock run `speed` times as fast as this machine's clock."""
        with self._lock:
            self._start, self._real_start = self._now(), time.monotonic()
            self.speed = _checked(speed)
        self._wake()

    def wait(self, condition: threading.Condition, until: float | None = None) -> None:
        """Wait until the condition is notified, the clock is changed, or the clock shows `until`.

        The caller must hold `condition`.
        """
        with self._lock:
            self._conditions.add(condition)
            left = None if until is None else (until - self._now()) / self.speed
        if left is None or left > 0:
            condition.wait(left)

    def _now(self) -> float:
        return self._start + (time.monotonic() - self._real_start) * self.speed

    def _wake(self) -> None:
        with self._lock:
            conditions = list(self._conditions)
        for condition in conditions:
            with condition:
                condition.notify_all()


def _checked(speed: float) -> float:
    if not 0 < speed <= 1e6:
        raise InputError(f"clock speed {speed} is not allowed; use a number above 0 and up to 1,000,000")
    return speed
