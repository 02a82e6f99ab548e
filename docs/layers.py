"""Draw the layers of the folders of ``jobs`` from the contract for their imports in ``pyproject.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, GAP, MARGIN = 360, 26, 6, 10
"""Sizes in pixels: width and height of a layer, gap between two layers, margin around the picture."""
STYLE = """\
.box{fill:#ffffff;stroke:#57606a;stroke-width:1.2}.light{fill:#ddf4ff;stroke:#0969da}
.t{font:13px system-ui,sans-serif;fill:#1f2328;text-anchor:middle}.n{font:12px system-ui,sans-serif;fill:#57606a}
.a{stroke:#57606a;stroke-width:1.4;fill:none;marker-end:url(#m)}.h{fill:#57606a}
@media (prefers-color-scheme:dark){.box{fill:#161b22;stroke:#8b949e}.light{fill:#0c2d6b;stroke:#58a6ff}
.t{fill:#e6edf3}.n{fill:#8b949e}.a{stroke:#8b949e}.h{fill:#8b949e}}"""
ARROW = '<defs><marker id="m" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">' \
    '<path class="h" d="M0 0L8 4L0 8z"/></marker></defs>'  # fmt: skip


def picture() -> str:
    """Return an SVG with one row for each layer. Folders that Airflow loads, too, have another colour."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (rows,) = (each["layers"] for each in contracts if each.get("containers") == ["jobs"])
    (heavy,) = (set(each["forbidden_modules"]) for each in contracts if "jobs.cli" in each.get("forbidden_modules", ()))
    parts = list[str]()
    for number, row in enumerate(rows):
        names = row.split(" | ")  # modules that may import each other are joined by " : "
        width = (WIDTH - (len(names) - 1) * 2 * GAP) / len(names)
        for place, name in enumerate(names):
            is_light = not {f"jobs.{name}", f"jobs.{name.partition('.')[0]}"} & heavy and name != "__main__"
            text = name.replace(" : ", ", ")
            parts += _box(MARGIN + place * (width + 2 * GAP), MARGIN + number * (HEIGHT + GAP), width, text, is_light)
    bottom = MARGIN + len(rows) * (HEIGHT + GAP) - GAP
    left = MARGIN + WIDTH + 25
    parts.append(f'<path class="a" d="M{left} {MARGIN + 4}V{bottom}"/>')
    parts.append(f'<text class="n" x="{left + 10}" y="{MARGIN + 18}">imports run downwards</text>')
    parts.append(f'<rect class="box light" x="{left + 10}" y="{MARGIN + 40}" width="16" height="12" rx="3"/>')
    parts.append(f'<text class="n" x="{left + 32}" y="{MARGIN + 50}">light: Airflow loads these, too</text>')
    size = f'viewBox="0 0 {WIDTH + 260} {bottom + MARGIN}"'
    label = 'role="img" aria-label="The folders of jobs in the order of their imports"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}><style>\n{STYLE}\n</style>{ARROW}\n{body}\n</svg>\n'


def _box(x: float, y: float, width: float, name: str, is_light: bool) -> tuple[str, str]:
    kind = "box light" if is_light else "box"
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="6"/>',
        f'<text class="t" x="{x + width / 2:.1f}" y="{y + 17.5}">{name}</text>',
    )
