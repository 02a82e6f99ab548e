"""Formats numbers with units for people, and a curve as one line of text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import fmean
from typing import Any

from jobs.lake.strict_json import as_number

_BARS = "▁▂▃▄▅▆▇█"
_BINARY = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def readable(value: Any) -> str:
    """Return a value as text for people: "yes" or "no", "-" for None, numbers rounded and with commas."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def with_unit(value: Any, unit: str) -> str:
    """Return a number with its unit. Bytes become KiB to TiB, shares become per cent, seconds become durations."""
    if as_number(value) is None:
        return readable(value)
    if unit == "bytes":
        return next((f"{value / size:,.3g} {name}" for name, size in _BINARY if abs(value) >= size), f"{value:,.0f} B")
    if unit == "share":
        return f"{value:.2%}" if abs(value) < 0.1 else f"{value:.1%}"
    if unit == "s":
        return duration(value)
    if unit == "USD":
        return f"{value:,.2f} USD" if abs(value) >= 1 or value == 0 else f"{value:.2g} USD"
    return f"{readable(value)} {unit}".rstrip()


def duration(seconds: float) -> str:
    """Return a duration in seconds as text: ``4.2 s``, ``3:05 min`` or ``2:07:30 h``."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def moment(seconds: float | None) -> str:
    """Return a time in seconds since 1970 as ``2026-11-26 02:00 UTC``, or ``-`` if it is None or not a valid time."""
    try:
        return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "-"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return a curve as at most `width` characters, from the lowest finite value (▁) to the highest (█).

    A longer curve is divided into intervals, each of which is shown by its mean.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    _, exponent = math.frexp(max(map(abs, finite)))
    numbers = [math.ldexp(value, -exponent) for value in finite]  # below 1, so that no sum or difference overflows
    count = min(width, len(numbers))
    edges = [len(numbers) * place // count for place in range(count + 1)]
    means = [fmean(numbers[start:end]) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    heights = ((mean - low) / (high - low) if high > low else 0.0 for mean in means)
    return "".join(_BARS[round(height * (len(_BARS) - 1))] for height in heights)


def one_line(text: object, most: int) -> str:
    """Return a text as one printable line of at most `most` characters."""
    line = " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
