"""Words of messages for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 row``, ``2,000 rows``. The plural of the noun ends with an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
