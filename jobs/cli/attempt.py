"""One attempt at a step. The caller (the DAG) passes the attempt's number.

However the step ends (done, failed, refused, or stopped by SIGTERM), the process then writes the outcome to the lake.
For example, ``python -m jobs train --config <run>/config.json --attempt 2`` writes
``<run>/steps/train/2/outcome.json``.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import TYPE_CHECKING

import jobs
from jobs.errors import InputError, NightjarError, StoppedError, shorten

if TYPE_CHECKING:
    from jobs.lake.layout import Run

log = logging.getLogger("jobs")

WRITE_SECONDS = 20.0
"""Longest time in seconds to try to write an outcome. It is short, because the caller waits for the exit code."""
MOST_CHARACTERS = 1000
"""Largest length, in characters, of a line of an error message."""


class _Terminated(BaseException):
    """Interrupts the program when SIGTERM arrives. It is a BaseException, so ``except Exception`` does not catch it."""


class Attempt:
    """An attempt at a step of a run."""

    def __init__(self, run: Run, step: str, number: int) -> None:
        self._run = run
        self._step = step
        self._number = number
        self._started = _now()

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Attempt | None:
        """Return the attempt that the options --config and --attempt in `arguments` describe.

        Return None if one of these options is missing or not valid. They are read before the command line is parsed, so
        that an outcome is written even if another option is wrong.
        """
        number, config = _value("--attempt", arguments), _value("--config", arguments)
        if config is None or number is None or not (number.isascii() and number.isdigit() and int(number)):
            return None
        from jobs.lake.layout import Run

        try:
            return cls(Run.of_config(config), arguments[0], int(number))
        except InputError:  # the command itself reports it
            return None

    def end(self, exit_code: int, error: BaseException | None, message: str) -> None:
        """Write the outcome to the lake. If that fails, log a warning."""
        from jobs.lake.outcome import Outcome
        from jobs.lake.store import Store

        outcome = Outcome(
            step=self._step,
            attempt=self._number,
            exit_code=exit_code,
            exception=None if error is None else type(error).__name__,
            message=None if error is None else shorten((message.splitlines() or [""])[0], MOST_CHARACTERS),
            place=None if error is None else place_of(error),
            host=socket.gethostname(),
            started=self._started,
            ended=_now(),
        )
        uri = self._run.outcome(self._step, self._number)
        try:
            with _ignored_sigterm():
                Store(retry_seconds=WRITE_SECONDS).write_bytes(uri, outcome.to_json())
        except (OSError, NightjarError) as failure:
            log.warning("%s: the outcome could not be written (%s)", uri, failure)


def place_of(error: BaseException) -> str | None:
    """Return the file and line that raised an error, such as ``jobs/pipeline.py:12``.

    If a library raised the error, return the line of the package `jobs` from which the library was called. Return None
    if the error has no traceback.
    """
    root = Path(jobs.__file__).parent
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    here = Path(__file__)
    own = [(path.relative_to(root.parent), line) for path, line in frames if path.is_relative_to(root) and path != here]
    return next((f"{path.as_posix()}:{line}" for path, line in reversed(own or frames)), None)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Interrupt the block when SIGTERM arrives. After the block has cleaned up, raise StoppedError.

    In any other thread than the main thread, SIGTERM is not handled, because Python does not allow it there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Terminated as end:
        message = "stopped by SIGTERM; finished work is kept; run the same command again to continue"
        raise StoppedError(message).with_traceback(end.__traceback__) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ignored_sigterm() -> Iterator[None]:
    """Ignore SIGTERM while the block runs. The block must be short."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _value(option: str, arguments: Sequence[str]) -> str | None:
    """Return the value of an option in `arguments`, a command line. Return None if the option is missing."""
    for number, word in enumerate(arguments):
        if word == option:
            return next(iter(arguments[number + 1 :]), None)
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
