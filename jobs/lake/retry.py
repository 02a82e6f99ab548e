"""Patience with a lake that fails for a while: what can help is tried again, with growing pauses, up to a limit."""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

from jobs.errors import LakeError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LIMIT_SECONDS = 120.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0

LAKE_ERRORS = (OSError, ClientError, BotoCoreError)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_TRANSIENT_NUMBERS = {errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
_TRANSIENT_CODES = re.compile("Slow ?Down|Throttl|TooManyRequests|RequestTimeout|RequestLimitExceeded", re.IGNORECASE)
_TRANSIENT_ARROW = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT)"
    r"|HTTP status 5\d\d"
)

log = logging.getLogger(__name__)


def patient(
    function: Callable[Concatenate[str, Arguments], Result],
) -> Callable[Concatenate[str, Arguments], Result]:
    """Try `function`, whose first argument is a URI in the lake, again while its error may pass.

    Raises:
        LakeError: if it did not pass within `LIMIT_SECONDS`, or the disk is full.
    """

    @wraps(function)
    def tried(uri: str, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        deadline, pause = time.monotonic() + LIMIT_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            try:
                return function(uri, *args, **kwargs)
            except LAKE_ERRORS as error:
                refuse_full_disk(uri, error)
                if not is_transient(error):
                    raise
                if time.monotonic() + pause > deadline:
                    raise LakeError(
                        f"{uri}: the lake has not answered for {LIMIT_SECONDS:g} s ({one_line(error)});"
                        " the same command goes on from here when it does"
                    ) from None
                log.warning("%s: trying again in %.1f s (%s)", uri, pause, one_line(error))
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - many workers must not come at once, no more
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    return tried


def refuse_full_disk(uri: str, error: Exception) -> None:
    """Say in one line that the disk is full, if that is what `error` says.

    Raises:
        LakeError: if it does.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        raise LakeError(
            f"{uri}: the disk is full; what was begun is removed: make room, and the same command goes on"
        ) from None


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or bool(_TRANSIENT_CODES.search(error.response.get("Error", {}).get("Code", "")))
    if isinstance(error, OSError):
        number = error.errno in _TRANSIENT_NUMBERS
        return number or isinstance(error, ConnectionError) or bool(_TRANSIENT_ARROW.search(str(error)))
    return isinstance(error, HTTPClientError | NoConnectionError)


def one_line(error: Exception) -> str:
    """An error's kind and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
