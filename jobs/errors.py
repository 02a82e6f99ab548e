"""What can go wrong, as one small hierarchy of named exceptions.

A message says what is wrong, where (file, line, key, offset) and what to do, in one line. All of them can be pickled,
since they travel from Spark's workers to the driver.
"""

from __future__ import annotations


class NightjarError(Exception):
    """Base class. The process ends with `exit_code` and the message as its last line."""

    exit_code = 1


class InputError(NightjarError):
    """The user's input or configuration is wrong: nothing was written, and trying again as it is cannot help."""

    exit_code = 2


class DamagedError(InputError):
    """A file in the lake is not what its manifest says: truncated, altered or missing."""


class WorkerLostError(NightjarError):
    """A worker of a gang died or hung: the work can be resumed from the last checkpoint.

    The first line says what happened; stacks may follow.
    """


class DivergedError(NightjarError):
    """The loss is not finite, or has risen too far: `step` is the one that could not be taken."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message, step)
        self.step = step

    def __str__(self) -> str:
        return str(self.args[0])


class LakeError(NightjarError):
    """The lake cannot be read or written, and has been tried for long enough: what is finished in it stays."""


class StoppedError(NightjarError):
    """The run was told to end before it was complete: the same run goes on from its last checkpoint."""
