"""Rows as tables: CSV for programs, aligned columns for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """`rows` under one header, of equal columns; all but numbers in quotes (RFC 4180, line feeds)."""
    columns = list(rows[0]) if rows else []
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def to_lines(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> list[str]:
    """Those of the `columns` that the rows have, aligned to the right, below their names."""
    shown = [column for column in columns if rows and column in rows[0]]
    cells = [[column.replace("_", " ") for column in shown]]
    cells += [[readable(row[column]).splitlines()[0] for column in shown] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return [f"  {line}" for line in lines] if rows else []


def readable(value: Any) -> str:
    """A figure for reading."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
