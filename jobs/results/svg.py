"""Plots as SVG: curves over the steps of a training, and horizontal bars.

Colours are classes of the style sheet (``s0`` to ``s7`` and ``base``), so plots fit both a light and a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from operator import itemgetter
from typing import NamedTuple

from jobs.results.text import one_line, with_unit

WIDTH, HEIGHT = 560, 240
COLOURS = 8
"""Number of colours in the style sheet."""
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 36
MAX_POINTS = 500
"""Approximate maximum number of points with which a curve is drawn. More points would share pixels."""
MAX_MARKS = 120
"""A curve with at most this many points has a mark at each point, with the values as a tooltip."""
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_DECIMAL = ((1e12, "10¹² "), (1e9, "billion "), (1e6, "million "), (1e4, "thousand "))
_BESIDE = ("bytes", "s", "share")
"""Units that `with_unit` adapts to each value, such as KiB or MiB for bytes. So each bar has its unit beside it."""
_NEGLIGIBLE = 1e-290
"""Absolute values up to this are drawn as zero: between smaller values, floats are too coarse for ticks."""
_BAR, _BAR_GAP, _GROUP_GAP = 16, 3, 14
_LABEL, _VALUE = 22, 124
_MOST_LABEL, MOST_TITLE = 40, 300
"""Maximum number of characters of a bar's label, and of a title or tooltip."""

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Line:
    """A curve: its label and its points. `baseline` marks a curve with which the others are compared."""

    label: str
    points: Points
    baseline: bool = False
    colour: int | None = None
    """Number of the curve's colour in the style sheet. If it is None, the number of the curve in its plot is used."""

    @property
    def last(self) -> float:
        """The last finite value; NaN if there is none."""
        return next((y for _, y in reversed(self.points) if math.isfinite(y)), math.nan)


@dataclass(frozen=True)
class Curves:
    """A plot of curves over optimizer steps. The title says what the plot shows."""

    name: str
    """Name of the PNG file of the plot, without ``.png``."""
    title: str
    unit: str
    lines: tuple[Line, ...]
    note: str = ""
    from_zero: bool = False

    def unit_text(self) -> str:
        """Return the units of both axes."""
        up = _axis((y for line in self.lines for _, y in line.points), self.unit, from_zero=self.from_zero)
        return f"{up.unit} over optimizer steps".lstrip()

    def to_svg(self) -> str:
        """Return the SVG element."""
        return "".join(_curves(self))


@dataclass(frozen=True)
class Bars:
    """A plot of horizontal bars in groups. Each group has a label, and one value for each series."""

    name: str
    title: str
    unit: str
    series: tuple[str, ...]
    groups: tuple[tuple[str, tuple[float, ...]], ...]
    note: str = ""

    def unit_text(self) -> str:
        """Return the unit of all bars. Return "" if each bar has its unit beside it."""
        return "" if self.unit in _BESIDE else self.unit

    def to_svg(self) -> str:
        """Return the SVG element."""
        return "".join(_bars(self))


class _Axis(NamedTuple):
    """The scale of an axis: its range, its ticks, and the unit in which the ticks are labelled."""

    low: float
    high: float
    ticks: tuple[float, ...]
    size: float
    unit: str

    def label(self, tick: float) -> str:
        return f"{tick / self.size:.6g}"

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _axis(values: Iterable[float], unit: str, *, from_zero: bool = False, is_tight: bool = False) -> _Axis:
    """Return an axis for the finite numbers in `values`. It ends at the extreme values if `is_tight`, else at ticks."""
    finite = [value if abs(value) > _NEGLIGIBLE else 0.0 for value in values if _is_drawable(value)] or [0.0, 1.0]
    low, high = min([*finite, 0.0] if from_zero else finite), max(finite)
    size, name = _scale(max(abs(low), abs(high)), unit)
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        low, high = low - (abs(low) or 1.0) * (0.0 if from_zero and low == 0 else 0.1), high + (abs(high) or 1.0) * 0.1
    step = _nice((high - low) / size / 4) * size
    first = math.floor(low / step + (1 - 1e-9 if is_tight else 1e-9))
    last = math.ceil(high / step - (1 - 1e-9 if is_tight else 1e-9))
    ticks = tuple(step * number for number in range(first, last + 1))
    return _Axis(low, high, ticks, size, name) if is_tight else _Axis(ticks[0], ticks[-1], ticks, size, name)


def _scale(largest: float, unit: str) -> tuple[float, str]:
    """Choose the unit in which ticks up to `largest` are labelled, such as MiB for `unit` "bytes".

    Return the size of the chosen unit, measured in `unit`, and its name.
    """
    if unit == "bytes":
        return next(((size, name) for size, name in _BINARY if largest >= size), (1, "bytes"))
    if unit == "share":
        return 0.01, "%"
    return next(((size / 10 if size == 1e4 else size, name + unit) for size, name in _DECIMAL if largest >= size),
                (1, unit))  # fmt: skip


def _is_drawable(value: float) -> bool:
    """Return whether a value is finite, and not so large that the range of an axis overflows."""
    return abs(value) < 1e300


def _nice(step: float) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(max(step, 1e-300)))
    return next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= step * (1 - 1e-9)), 10 * power)


def _curves(plot: Curves) -> Iterator[str]:
    points = [point for line in plot.lines for point in line.points]
    across = _axis((x for x, _ in points), "steps", is_tight=True)
    up = _axis((y for _, y in points), plot.unit, from_zero=plot.from_zero)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + across.share(x) * width, TOP + (1 - up.share(y)) * height

    yield _open(HEIGHT, plot.title)
    for tick in up.ticks:
        y = place(across.low, tick)[1]
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT - 8, y + 5, up.label(tick), "end")
    for tick in across.ticks:
        yield _text(place(tick, up.low)[0], HEIGHT - BOTTOM + 26, across.label(tick), "middle")
    for number, line in enumerate(plot.lines):
        yield from _line(line, _style(number, line), plot.unit, place)
    yield "</svg>"


def _style(number: int, line: Line) -> str:
    return f"base b{number % 3}" if line.baseline else f"s{(number if line.colour is None else line.colour) % COLOURS}"


def _line(line: Line, style: str, unit: str, place: Callable[[float, float], tuple[float, float]]) -> Iterator[str]:
    """Yield the SVG elements of a curve and of its marks. The curve has a gap where a value is not finite."""
    chosen = _thinned(line.points)
    path, is_open = "", False
    for x, y in chosen:
        if _is_drawable(y):
            left, top = place(x, y)
            path += f"{'L' if is_open else 'M'}{left:.1f} {top:.1f}"
        is_open = _is_drawable(y)
    yield f'<path class="{style}" d="{path}"/>'
    if line.baseline or len(chosen) > MAX_MARKS:
        return
    for x, y in chosen:
        if _is_drawable(y):
            left, top = place(x, y)
            what = escape(f"step {x:,.0f}: {line.label} {with_unit(y, unit)}")
            yield f'<circle class="{style}" cx="{left:.1f}" cy="{top:.1f}" r="3"><title>{what}</title></circle>'


def _thinned(points: Points) -> Points:
    """Return about `MAX_POINTS` points: the lowest and the highest of each interval, so that no peak is lost."""
    if len(points) <= MAX_POINTS:
        return points
    size = -(-2 * len(points) // MAX_POINTS)
    chosen: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        interval = points[start : start + size]
        drawable = [point for point in interval if _is_drawable(point[1])] or interval[:1]
        chosen += sorted({min(drawable, key=itemgetter(1)), max(drawable, key=itemgetter(1))})
    return (*chosen, points[-1])


def _bars(plot: Bars) -> Iterator[str]:
    largest = max((value for _, values in plot.groups for value in values if _is_drawable(value)), default=0.0)
    group = _LABEL + len(plot.series) * (_BAR + _BAR_GAP) + _GROUP_GAP
    room = WIDTH - _VALUE
    yield _open(group * len(plot.groups), plot.title)
    for place, (label, values) in enumerate(plot.groups):
        yield _text(0, place * group + _LABEL - 6, one_line(label, _MOST_LABEL), "start", title=label)
        for number, value in enumerate(values):
            y = place * group + _LABEL + number * (_BAR + _BAR_GAP)
            length = max(1, room * value / largest) if largest > 0 and _is_drawable(value) else 1
            yield f'<rect class="s{number % COLOURS}" x="0" y="{y}" width="{length:.1f}" height="{_BAR}"/>'
            text = with_unit(value, plot.unit if plot.unit in _BESIDE else "")
            yield _text(length + 8, y + _BAR - 3, text, "start", "value")
    yield "</svg>"


def _open(height: float, title: str) -> str:
    label = escape(one_line(title, MOST_TITLE))
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">'


def _text(x: float, y: float, text: str, anchor: str, style: str = "", title: str = "") -> str:
    tooltip = f"<title>{escape(one_line(title, MOST_TITLE))}</title>" if title and title != text else ""
    name = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(text)}{tooltip}</text>'


def legend(plot: Curves | Bars) -> Sequence[tuple[str, str, str]]:
    """Return the style, the label and the last value of each curve of a plot.

    For bars, return the style and the label of each series, or [] if there is only one series.
    """
    if isinstance(plot, Bars):
        return (
            [(f"s{number % COLOURS}", label, "") for number, label in enumerate(plot.series)]
            if len(plot.series) > 1
            else []
        )
    return [
        (_style(number, line), line.label, with_unit(line.last, plot.unit if plot.unit in _BESIDE else ""))
        for number, line in enumerate(plot.lines)
    ]
