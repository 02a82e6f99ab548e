"""The outcome of one attempt at a step, which the step's driver writes to the run's folder.

The last file that the driver writes is ``steps/<step>/<attempt>/outcome.json``, whether the step is done, failed,
refused or stopped. If an attempt has ended without this file, it was killed or could not write to the lake.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from jobs.errors import reading


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a step ended."""

    step: str
    attempt: int
    """Number of the attempt, from 1."""
    exit_code: int
    exception: str | None
    """Name of the exception's class; None if there was none."""
    message: str | None
    """The exception's message, in one line."""
    place: str | None
    """File and line that raised the exception, such as ``jobs/training/step.py:41``."""
    host: str
    """Name of the driver's machine."""
    started: str
    """Start of the driver, as an ISO 8601 time in UTC."""
    ended: str
    """End of the driver, in the same form as `started`."""

    @property
    def cause(self) -> str:
        """One line that says why the attempt failed, and where."""
        if self.exception is None:
            return f"exit code {self.exit_code}"
        places = ", ".join(filter(None, (self.place, f"host {self.host}")))
        return f"{self.exception}: {self.message} ({places})"

    def to_json(self) -> bytes:
        """Return the content of ``outcome.json``."""
        return json.dumps(asdict(self), indent=2, allow_nan=False).encode() + b"\n"


def parse_outcome(data: bytes, uri: str) -> Outcome:
    """Return the outcome that `Outcome.to_json` wrote to the file `uri`. Unknown keys are ignored.

    Raises:
        DamagedError: if `data` is not an outcome.
    """
    with reading(uri, "delete it; the step's logs show the cause as well"):
        values = json.loads(data)
        outcome = Outcome(**{field.name: values[field.name] for field in fields(Outcome)})
        texts = (outcome.step, outcome.host, outcome.started, outcome.ended)
        optional = (outcome.exception, outcome.message, outcome.place)
        if (
            any(type(number) is not int for number in (outcome.attempt, outcome.exit_code))
            or any(not isinstance(text, str) for text in texts)
            or any(not isinstance(text, str | None) for text in optional)
        ):
            raise TypeError("a value has the wrong type")
        return outcome
