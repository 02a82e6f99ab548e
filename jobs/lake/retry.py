"""Retries of operations on a lake after transient errors."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.errors import LakeError

LIMIT_SECONDS = 120.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 10.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRANSIENT = {errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class TransientError(OSError):
    """A failure of the lake that may pass: throttling, a lost connection, a server error, a conflict."""


def retry_transient(uri: str, operation: Callable[[], Result], limit_seconds: float) -> Result:
    """Return the result of `operation`. Retry after transient errors for at most `limit_seconds`; with 0, try once."""
    deadline, pause = time.monotonic() + limit_seconds, _FIRST_PAUSE_SECONDS
    while True:
        try:
            return operation()
        except OSError as error:
            refuse_full_disk(uri, error)
            if not is_transient(error) or not limit_seconds:
                raise
            if time.monotonic() + pause > deadline:
                raise LakeError(
                    f"{uri}: the lake was unreachable for {limit_seconds:g} s ({one_line(error)});"
                    " run the same command again later; finished work is kept"
                ) from None
            log.warning("%s: trying again in %.1f s (%s)", uri, pause, one_line(error))
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the retries of many workers
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def refuse_full_disk(location: str, error: OSError) -> None:
    """Raise a LakeError with a message of one line if `error` means that the disk of `location` is full."""
    if error.errno in _FULL:
        raise LakeError(
            f"{location}: the disk is full; the incomplete file was removed; make room and run the same command again"
        ) from None


def is_transient(error: OSError) -> bool:
    """Return whether the operation that raised `error` may succeed a moment later."""
    return isinstance(error, TransientError | ConnectionError) or error.errno in _TRANSIENT


def one_line(error: OSError) -> str:
    """Return the first line of an error's message. Add the class's name, except for OSError and TransientError."""
    text = (str(error).splitlines() or [""])[0]
    return text if type(error) in (OSError, TransientError) else f"{type(error).__name__}: {text}"
