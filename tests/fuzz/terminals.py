"""Commands that work, in odd places: closed or full outputs, ASCII and narrow terminals, full disks, no home."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz import worlds
from tests.fuzz.children import Command, check
from tests.fuzz.commands import environment
from tests.fuzz.registry import Case, family

_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("--help",),
    ("run", "--help"),
    ("bogus",),
    ("sample", "--model", "one", "--max-new-tokens", "3"),
    ("sample", "--model", "two", "--prompt", "夜 \udcff", "--max-new-tokens", "3"),
    ("sample", "--model", "夜"),
    ("export", "--model", "one", "--format", "gguf", "--output", "out.gguf"),
    ("export", "--model", "one", "--format", "zip", "--output", "out.zip"),
    ("export", "--model", "one", "--format", "folder", "--output", "out"),
    ("check-metrics", "lake/runs/lab/local/one/stats/metrics.csv"),
    ("check-metrics", "夜.csv"),
    ("embed", "--run", "two", "--neighbours", "the"),
    ("run", "--corpus", "t.txt", "--run-id", "夜", "--preset", "none"),
    (*worlds.run_arguments("one")[:-2], "--run-id", "next"),
    tuple(worlds.run_arguments("two")),
    ("train", "--config", "lake/runs/lab/local/one/config.json", "--engine", "inline"),
)
_NIGHTJAR = (("aws-plan", "--preset", "tiny"), ("aws-deploy", "prod"), ("emr", "--host", "夜"), ("--show-completion",))


@family("terminal")
def _terminal(rng: Random, folder: Path) -> Case:
    """A right command in an odd place."""
    folder = worlds.inner_folder(folder)
    lake = worlds.copy_lake(folder)
    is_jobs = rng.random() < 0.85
    is_full = rng.random() < 0.3
    read_only = rng.random() < 0.15
    stdout = rng.choice(("file", "file", "closed", "full", "gone"))
    stderr = rng.choice(("file", "file", "file", "file", "closed", "full", "gone"))
    command = Command(
        rng.choice(_COMMANDS if is_jobs else _NIGHTJAR),
        "python -m jobs" if is_jobs else "nightjar",
        {"COLUMNS": rng.choice(("1", "0", "20", "-5", "x", "80")), "LINES": "1", **environment(rng)},
        stdin=rng.choice((None, b"", b"The man", b"\xff\xfe\x00", "夜".encode(), b"\n" * 9)),
        stdout=stdout,
        stderr=stderr,
        encoding=rng.choice(("ascii", "utf-8", "latin-1")),
        most_file_bytes=rng.choice((0, 1, 100, 4096, 20_000)) if is_full else None,
        is_damaged=is_full or read_only or "full" in (stdout, stderr) or not is_jobs,
    )
    if read_only:
        rng.choice((folder, lake, lake / "runs", lake / "runs/lab/local/one")).chmod(0o500)
    return Case(f"{command}{'; read-only' if read_only else ''}", partial(check, command, folder, lake), lake)
