"""Waiting for what must happen."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 600.0
"""How long a test waits for what must happen, where the time is not what it tests.

A machine under load takes six times as long as a quiet one. A limit that is too short fails a product that is right;
a long one costs time only where something hangs.
"""


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS, what: str = "") -> Any:
    """Wait until the condition returns a true value, and return that value."""
    deadline, pause = time.monotonic() + seconds, 0.05
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {what}"
        time.sleep(pause)
        pause = min(1.1 * pause, 0.5)  # a server that is asked without a pause has less time for its work
    return value
