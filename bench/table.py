"""Print tables and targets in a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title and aligned columns. The first column is left-aligned, the others are right-aligned."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    print(f"\n{title}")
    for row in (header, *rows):
        cells = (
            f"{cell:>{width}}" if i else f"{cell:<{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  " + "  ".join(cells))


def target(name: str, value: float, wanted: float, at_most: bool = False) -> None:
    """Print a value, its target, and whether the target is met."""
    met = value <= wanted if at_most else value >= wanted
    sign = "at most" if at_most else "at least"
    print(f"  {name}: {value:.3g} (target: {sign} {wanted:g}) {'met' if met else 'NOT MET'}")
