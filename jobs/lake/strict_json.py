"""Standard JSON: without the values NaN and Infinity, which Python's `json` writes and other programs refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from jobs.errors import NightjarError


class NotFiniteError(NightjarError):
    """A number that must be finite is NaN or infinite."""


def to_json(value: Any, what: str, *, ensure_ascii: bool = True) -> bytes:
    """Return `value` as the content of an indented JSON file.

    Raises:
        NotFiniteError: if a number in `value` is not finite. The message names `what` and the key of the number.
    """
    try:
        return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=ensure_ascii).encode() + b"\n"
    except ValueError:
        found = ", ".join(not_finite(value))
    raise NotFiniteError(f"{what}: {found}; JSON has no such number, so nothing was written")


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return one line of JSON for each row, in which numbers that are not finite are null."""
    return "".join(json.dumps(finite(dict(row)), allow_nan=False) + "\n" for row in rows).encode()


def as_number(value: Any) -> float | None:
    """Return a value if it is a finite number that a float can hold, else None."""
    with suppress(OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
    return None


def finite(value: Any) -> Any:
    """Return a copy of a JSON value in which None replaces all numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def not_finite(value: Any, key: str = "") -> Iterator[str]:
    """For each number that is not finite in a JSON value, yield its key and the number, such as ``loss is nan``."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{key or 'the value'} is {value}"
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from not_finite(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from not_finite(each, f"{key}[{number}]")
