"""The errors of all packages, under one base class.

A message is one line: what is wrong, where (file, line, key, offset), the value found, and what to do. Every error can
be pickled, because Spark sends errors from its workers to the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class NightjarError(Exception):
    """Base class of all errors that are reported without a traceback.

    A process that ends with such an error prints the error's message as its last line and exits with `exit_code`. Exit
    code 1 means that a new attempt may succeed, so Airflow retries the task.
    """

    exit_code = 1


class InputError(NightjarError):
    """The user's input or configuration is wrong. Airflow does not retry: another attempt would fail the same way."""

    exit_code = 2


class BudgetError(InputError):
    """A run would cost more than a budget allows, or a price or cost that the check needs is not known."""


class DamagedError(NightjarError):
    """A file in the lake differs from its manifest: it is truncated, altered or missing."""


class LakeError(NightjarError):
    """The lake could not be read or written within the retry limit. Finished work in it is kept."""


class WorkerLostError(NightjarError):
    """A training worker ended unexpectedly or hung. Training can resume from the last checkpoint.

    The first line of the message says what happened; stack traces may follow.
    """


class MemoryLimitError(WorkerLostError):
    """A container exceeded its memory limit and was killed. A new container of the same size may be killed as well."""


class CapacityError(NightjarError):
    """The cluster did not provide the capacity that its settings promise. A later attempt may succeed."""


class DivergedError(NightjarError):
    """The training loss is not finite or rose too far. `step` is the optimizer step that failed."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message, step)
        self.step = step

    def __str__(self) -> str:
        return str(self.args[0])


class StoppedError(NightjarError):
    """The run was stopped before it was complete. Starting it again resumes from the last checkpoint."""


@contextmanager
def reading(uri: str, remedy: str) -> Iterator[None]:
    """Raise DamagedError if the block fails to parse the file or folder `uri`. The message ends with `remedy`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(f"{uri}: not what Nightjar writes ({type(error).__name__}: {error}); {remedy}") from error


def shorten(value: object, most: int = 200) -> str:
    """Return the text of a value for a message: printable, and shortened to about `most` characters."""
    text = str(value).encode(errors="backslashreplace").decode()
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text[: 2 * most])
    return text if len(text) <= most else f"{text[: most * 3 // 4]}...{text[-most // 4 :]}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 row``, ``2,000 rows``. The noun must form its plural with an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``; did you mean X?``, where X is the known name most similar to `name`. Return "" if none is similar."""
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""
