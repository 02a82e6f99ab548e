"""Draws the plots of a report as pictures for READMEs and slides, such as ``loss.png``, from the report's own SVG.

The pictures need resvg-py and a system font. If one of these is missing, no pictures are drawn and a log line says why.
The report itself has all plots in any case.
"""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import TYPE_CHECKING

from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import join
from jobs.results.svg import MOST_TITLE, WIDTH, Bars, Curves, legend
from jobs.results.text import one_line

if TYPE_CHECKING:
    from jobs.results.report import Report

ZOOM = 2
"""Width of a picture in pixels, divided by the width of the SVG."""
_FONTS = "'DejaVu Sans', 'Liberation Sans', 'Noto Sans', 'Open Sans', Roboto, Arial, Helvetica, Verdana, sans-serif"
_STYLE = """<style>
text { font-family: FONTS; font-size: 14px; fill: #5b6169; }
text.title { font-size: 16px; font-weight: bold; fill: #1c1e21; }
text.label { font-size: 13px; fill: #1c1e21; }
path { fill: none; stroke-width: 2; stroke-linejoin: round; } circle { fill: #fff; stroke-width: 1.5; }
.grid { stroke: #e9ebed; stroke-width: 1; }
path.s0, circle.s0, line.s0 { stroke: #1f5fbf; } path.s1, circle.s1, line.s1 { stroke: #c4560b; }
path.s2, circle.s2, line.s2 { stroke: #13795b; } path.s3, circle.s3, line.s3 { stroke: #7a3fb0; }
rect.s0 { fill: #1f5fbf; } rect.s1 { fill: #c4560b; } rect.s2 { fill: #13795b; } rect.s3 { fill: #7a3fb0; }
.base { stroke: #6b7178; stroke-width: 1.75; stroke-dasharray: 7 5; } .b0 { stroke-dasharray: 2 4; }
line.base, line.s0, line.s1, line.s2, line.s3 { stroke-width: 3; }
</style>""".replace("FONTS", _FONTS)
_EDGE, _TITLE_LINE, _LEGEND_LINE = 20, 22, 22

log = logging.getLogger(__name__)


def write_pictures(report: Report, folder_uri: str, store: Store = ENVIRONMENT) -> list[str]:
    """Write the pictures of a report to a folder, and return their URIs. Return [] if they cannot be drawn."""
    plots: list[Curves | Bars] = [*report.training_figures(), *report.data_figures(), *report.spark_figures()]
    written: list[str] = []
    for plot in plots:
        if (data := draw(picture_of(plot))) is None:
            return written
        written.append(join(folder_uri, f"{plot.name}.png"))
        store.write_bytes(written[-1], data)
    return written


def draw(svg: str) -> bytes | None:
    """Return an SVG as a PNG file. If this machine cannot draw it, log why and return None."""
    try:
        import resvg_py  # noqa: PLC0415 - a machine may lack it
    except ImportError:
        log.info("no pictures of the plots: resvg-py is not installed; the report has the plots")
        return None
    if not _has_font():
        log.info("no pictures of the plots: this machine has no font; the report has the plots")
        return None
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=ZOOM))


@cache
def _has_font() -> bool:
    """Return whether this machine has a font, so that text is visible in a picture."""
    import resvg_py  # noqa: PLC0415

    box = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">{}</svg>'
    word = f'<text x="2" y="15" font-family="{_FONTS}" font-size="14">loss</text>'
    with_text, empty = (bytes(resvg_py.svg_to_bytes(svg_string=box.format(each))) for each in (word, ""))
    return with_text != empty


def picture_of(plot: Curves | Bars) -> str:
    """Return a plot as a separate SVG file, with title, unit, legend, colours and a white background."""
    title = textwrap.wrap(one_line(plot.title, MOST_TITLE), 58)
    opened = re.match(r'<svg viewBox="0 0 \d+ ([\d.]+)"[^>]*>', inner := plot.to_svg())
    assert opened is not None
    top = _EDGE + _TITLE_LINE * len(title) + (20 if plot.unit_text() else 8)
    rows = list(_legend_rows(plot))
    height = top + float(opened[1]) + 14 + _LEGEND_LINE * len(rows) + _EDGE / 2
    width = WIDTH + 2 * _EDGE
    lines = [f'<text class="title" x="{_EDGE}" y="{_EDGE + 16 + _TITLE_LINE * number}">{escape(line)}</text>'
             for number, line in enumerate(title)]  # fmt: skip
    if plot.unit_text():
        lines.append(f'<text x="{_EDGE}" y="{top - 6}">{escape(plot.unit_text())}</text>')
    lines.append(f'<g transform="translate({_EDGE} {top})">{inner[opened.end() : -len("</svg>")]}</g>')
    for number, row in enumerate(rows):
        y = top + float(opened[1]) + 14 + _LEGEND_LINE * number + 10
        for x, style, label in row:
            lines.append(f'<line class="{style}" x1="{x}" x2="{x + 22}" y1="{y - 5}" y2="{y - 5}"/>')
            lines.append(f'<text class="label" x="{x + 28}" y="{y}">{escape(label)}</text>')
    size = f'width="{width}" height="{height:.0f}" viewBox="0 0 {width} {height:.0f}"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{_STYLE}{ground}{"".join(lines)}</svg>'


def _legend_rows(plot: Curves | Bars) -> Iterator[list[tuple[int, str, str]]]:
    """Yield the lines of a legend. A line is a list of its series: the x position, the style and the text of each."""
    row: list[tuple[int, str, str]] = []
    x = _EDGE
    for style, label, last in legend(plot):
        text = f"{label} {last}".rstrip()
        needed = 28 + 8 * len(text) + 16
        if row and x + needed > WIDTH + _EDGE:
            yield row
            row, x = [], _EDGE
        row.append((x, style, text))
        x += needed
    if row:
        yield row
