"""Comparison of the results in two lakes, each of which holds one run; it reads files alone."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

DATASETS = {"token shards": "tokens", "window shards": "windows", "embeddings": "embeddings"}
FILES = {"weights": "model.safetensors", "generated text": "generated.txt"}
RANDOM_PART = re.compile(r"-[0-9a-f]{8,}(?=\.)")
VARIES = re.compile(r"seconds|per_second|resident|memory|gpu_bytes|(^|_)load($|_)")
"""Names of columns that hold a time, a speed, a memory or a load."""

Labelled = Sequence[tuple[str, str]]


class Comparison(NamedTuple):
    """A part of the results, its first difference (empty: equal), and what else is to be said."""

    what: str
    difference: str
    note: str = ""


def compare(base: Path, today: Path, *, has_embeddings: bool) -> list[Comparison]:
    """Compare datasets, weights, generated text and metrics of two lakes. What is in neither lake is a difference."""
    found = []
    for what, kind in DATASETS.items():
        if kind != "embeddings" or has_embeddings:
            found.append(Comparison(what, _first_difference(_dataset(base, kind), _dataset(today, kind))))
    for what, name in FILES.items():
        found.append(Comparison(what, _first_difference(_file(base, name), _file(today, name))))
    return [*found, _compare_metrics(_metrics(base), _metrics(today))]


def _first_difference(base: Labelled, today: Labelled) -> str:
    if not base:
        return "nothing found in the base"
    for one, other in zip_longest(base, today):
        if other is None:
            return f"{one[0]} is missing"
        if one is None:
            return f"{other[0]} is new"
        if one[0] != other[0]:
            return f"{one[0]} became {other[0]}"
        if one[1] != other[1]:
            return f"{one[0]}: {one[1]} became {other[1]}"
    return ""


def _dataset(lake: Path, kind: str) -> Labelled:
    """The stem and the hash of each file of the only dataset of a kind, in the manifest's order.

    Statistics are left out: they are made of the other files, and may get a new figure.
    """
    manifests = [(path, json.loads(path.read_bytes())) for path in lake.glob("datasets/**/_manifest.json")]
    chosen = [(path.parent, manifest["files"]) for path, manifest in manifests if manifest["kind"] == kind]
    if len(chosen) > 1:
        return [(f"one of {len(chosen)} datasets", path.name) for path, _ in chosen]
    return [
        (RANDOM_PART.sub("", file["name"]), _sha256(folder / file["name"]))
        for folder, files in chosen
        for file in files
        if file["name"] != "stats.json"
    ]


def _run_file(lake: Path, name: str) -> Path | None:
    """The file of a name in the folder of the only run, the one nearest to that folder if there are several."""
    configs = sorted((lake / "runs").rglob("config.json"), key=lambda path: len(path.parts))
    paths = (path for config in configs[:1] for path in config.parent.rglob(name))
    return min(paths, key=lambda path: len(path.parts), default=None)


def _file(lake: Path, name: str) -> Labelled:
    path = _run_file(lake, name)
    return [(name, _sha256(path))] if path else []


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _metrics(lake: Path) -> list[dict[str, str]]:
    path = _run_file(lake, "metrics.csv")
    return list(csv.DictReader(path.read_text("utf-8").splitlines())) if path else []


def _compare_metrics(base: list[dict[str, str]], today: list[dict[str, str]]) -> Comparison:
    """Compare the base's columns; a column that today lacks is a difference, a new one is only named."""
    if not base or not today:
        return Comparison("metrics", f"no rows in {'today' if base else 'the base'}")
    columns = [column for column in base[0] if not VARIES.search(column)]
    new = [column for column in today[0] if column not in base[0]]
    note = f"{len(columns)} columns, {len(base)} rows" + (f"; new: {', '.join(new)}" if new else "")
    if missing := [column for column in base[0] if column not in today[0]]:
        return Comparison("metrics", f"missing: {', '.join(missing)}", note)
    sides = [
        [(f"{column} in row {i}", row[column]) for i, row in enumerate(rows, 1) for column in columns]
        for rows in (base, today)
    ]
    return Comparison("metrics", _first_difference(*sides), note)
