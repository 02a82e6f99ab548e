"""Folders in which commands run: a lake with two runs, and files of every kind, with names of every kind."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from jobs.lake.champion import format_champion
from jobs.model_io.archive import pack
from tests.fuzz.children import Command, run
from tests.support.datasets import PASSAGE

CHEAP = {
    "train.workers": 1,
    "train.max_tokens": 2000,
    "train.max_seconds": 1,
    "train.eval_windows": 4,
    "train.batch_size": 4,
    "generate.num_samples": 1,
    "generate.max_new_words": 2,
    "generate.max_new_tokens": 4,
    "model.num_layers": 1,
    "model.embedding_size": 16,
    "model.hidden_size": 16,
    "windows.size": 8,
    "tokenize.vocab_size": 300,
    "embed.epochs": 1,
    "embed.workers": 1,
    "embed.size": 16,
}
"""Settings of a run that takes a second."""
RUNS = {
    "one": CHEAP,
    "two": CHEAP
    | {"model.kind": "context_mlp", "model.hidden_sizes": "[8]", "tokenize.kind": "word", "train.embeddings": "embed"},
}


def settings_options(settings: dict[str, object]) -> list[str]:
    """Return the options ``--set`` of settings."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def run_arguments(run_id: str) -> list[str]:
    """Return the arguments that made a run, which continue it."""
    return ["run", "--corpus", "t.txt", "--preset", "tiny", "--run-id", run_id, *settings_options(RUNS[run_id])]


@cache
def _template() -> tempfile.TemporaryDirectory[str]:
    """Make the lake that cases copy, once in a process."""
    folder = tempfile.TemporaryDirectory(prefix="lake-")
    root = Path(folder.name)
    (root / "t.txt").write_bytes(PASSAGE)
    for run_id in RUNS:
        outcome = run(Command(run_arguments(run_id)), root)
        assert outcome.code == 0, outcome.stderr
    shutil.copytree(root / "lake/runs/lab/local/one/model", root / "lake/models/first")
    (root / "lake/models/champion.json").write_bytes(format_champion("first", "one", {"valid_loss": 3.0}))
    return folder


def inner_folder(folder: Path) -> Path:
    """Make and return a folder from which ``../..`` does not leave the case's folder."""
    inner = folder / "a/b/c"
    inner.mkdir(parents=True)
    return inner


def copy_lake(folder: Path) -> Path:
    """Copy the lake and its text into a folder; return the path of the lake."""
    template = Path(_template().name)
    shutil.copytree(template / "lake", folder / "lake")
    shutil.copy(template / "t.txt", folder)
    for config in folder.glob("lake/runs/*/*/*/config.json"):  # their text lies here now
        config.write_text(config.read_text("utf-8").replace(str(template), str(folder)), "utf-8")
    return folder / "lake"


def fill(rng: Random, folder: Path) -> None:
    """Write files of every kind into a folder."""
    (folder / "t.txt").write_bytes(PASSAGE)
    (folder / "empty.txt").touch()
    (folder / "bad.txt").write_bytes(b"caf\xe9 \xff\n")
    (folder / "dir/sub").mkdir(parents=True)
    (folder / "dir/a.txt").write_bytes(PASSAGE)
    (folder / "~").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "link").symlink_to("t.txt")
    (folder / "nowhere").symlink_to("missing/x")
    for name in (b"caf\xe9.txt", "夜 a.txt".encode(), b"new\nline.txt", b"-x.txt"):
        (folder / os.fsdecode(name)).write_bytes(PASSAGE)
    (folder / "no.zip").write_bytes(b"PK\x03\x04" + rng.randbytes(40))
    (folder / "other.zip").write_bytes(pack({"a": b"x"}))
    (folder / "m.csv").write_bytes(
        rng.choice((b"step,loss\n1,2\n2,1\n", b"", b"step\n", b"\xff", b"a,b\n1,nan\n", b'"'))
    )
    (folder / "config.json").write_text(json.dumps(rng.choice(({}, [], "x", {"corpus": 3}))))
    (folder / "locked.txt").write_bytes(PASSAGE)
    (folder / "locked.txt").chmod(0)
    (folder / "read-only").mkdir()
    (folder / "read-only/t.txt").write_bytes(PASSAGE)
    (folder / "read-only").chmod(0o500)
    (folder / "closed").mkdir()
    (folder / "closed").chmod(0)
