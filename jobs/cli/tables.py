"""Writes tables and lists of values: aligned on a terminal, and elsewhere as lines of cells separated by tabs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence


def write_pairs(values: Mapping[str, str]) -> None:
    """Write a line for each value: its name, a tab or blanks, and the value."""
    if not sys.stdout.isatty():
        sys.stdout.writelines(f"{_cell(key)}\t{_cell(value)}\n" for key, value in values.items())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for key, value in values.items():
        table.add_row(Text(key, style="dim"), Text(_cell(value)))
    Console().print(table)


def write_table(rows: Sequence[Mapping[str, str]], less_needed: Iterable[str] = ()) -> None:
    """Write a table on a terminal. Elsewhere, write lines of cells separated by tabs.

    All rows have the same keys, which are the names of the columns. If a terminal is too narrow for all columns, those
    in `less_needed` are left out one by one, until the rest fits.
    """
    if not rows:
        return
    if not sys.stdout.isatty():
        sys.stdout.writelines(f"{line}\n" for line in _lines(rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) + 2 for name in rows[0]}
    for name in less_needed:
        if sum(widths.values()) > console.width:
            del widths[name]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in widths:
        table.add_column(Text(_cell(name)), overflow="fold", justify="right" if _is_numeric(rows, name) else "left")
    for row in rows:
        table.add_row(*(Text(_cell(row[name]), style=_STYLES.get(row[name], "")) for name in widths))
    console.print(table)


_STYLES = {"done": "green", "failed": "red", "running": "cyan", "unfinished": "yellow"}


def _is_numeric(rows: Sequence[Mapping[str, str]], name: str) -> bool:
    return all(row[name][:1].isdigit() or row[name] == "-" for row in rows)


def _lines(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    yield "\t".join(_cell(name) for name in rows[0])
    for row in rows:
        yield "\t".join(_cell(value) for value in row.values())


def _cell(text: str) -> str:
    """Replace each unprintable character by a blank, because it could end the cell or alter the terminal."""
    return "".join(each if each.isprintable() else " " for each in text)
