"""Lakes with damaged files, models and archives among them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

from jobs.lake.manifest import FileEntry, parse_manifest
from jobs.model_io.archive import pack
from tests.fuzz import worlds
from tests.fuzz.children import Command, check
from tests.fuzz.damage import alter, damage
from tests.fuzz.registry import Case, family


def _spoil(rng: Random, path: Path) -> str:
    """Damage a file; return how."""
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.6:
        with suppress(ValueError, RecursionError):  # it has been damaged before
            text = path.read_text("utf-8")
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            altered = [json.dumps(alter(rng, json.loads(line))) for line in lines]
            path.write_text("\n".join(altered), "utf-8")
            return "a value changed"
    how = rng.choice(("bytes",) * 6 + ("missing", "empty", "folder", "pipe", "link", "locked"))
    if how == "bytes":
        data, how = damage(rng, path.read_bytes())
        path.write_bytes(data)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "locked":
        path.chmod(0)
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
        elif how == "link":
            path.symlink_to(path.name)
    return how


def _seal(folder: Path) -> None:
    """Write the sizes and hashes of a folder's files, as they are now, into its manifest."""
    path = folder / "_manifest.json"
    try:
        manifest = json.loads(path.read_text("utf-8"))
        parse_manifest(path.read_bytes(), "")
    except Exception:  # noqa: BLE001 - the manifest itself is damaged
        return
    for entry in manifest["files"]:
        file = folder / entry["name"]
        if file.is_file() and os.access(file, os.R_OK):
            found = FileEntry.of("", file.read_bytes())
            entry |= {"size": found.size, "sha256": found.sha256}
    path.write_text(json.dumps(manifest), "utf-8")


def _swap(rng: Random, lake: Path) -> str:
    """Put a file of one run in place of the other's."""
    runs = [lake / "runs/lab/local/one", lake / "runs/lab/local/two"]
    rng.shuffle(runs)
    name = rng.choice(
        ("model/tokenizer.json", "model/config.json", "model/model.safetensors", "datasets.json", "config.json")
    )
    shutil.copy(runs[0] / name, runs[1] / name)
    _seal(runs[1] / "model")
    return f"{name} of {runs[0].name} in {runs[1].name}"


def _pack_anew(rng: Random, lake: Path) -> str:
    """Write the archive of a model anew, from damaged files, or with odd names in it."""
    run = rng.choice((lake / "runs/lab/local/one", lake / "runs/lab/local/two"))
    contents = {path.name: path.read_bytes() for path in (run / "model").iterdir() if path.is_file()}
    if rng.random() < 0.6:
        (run / "model.zip").write_bytes(pack(contents))
        return f"{run.name}: packed anew"
    sink = io.BytesIO()
    odd = rng.choice(("../x", "/etc/x", "a\\b", " ", ".", "a/b", "config.json", "é", "x" * 300, "C:x"))
    with zipfile.ZipFile(
        sink, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    ) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
        archive.writestr(odd, b"x")
    (run / "model.zip").write_bytes(sink.getvalue())
    return f"{run.name}: {odd!r} in the archive"


_COMMANDS: tuple[tuple[str, ...], ...] = (
    *(("sample", "--model", name, "--prompt", "The", "--max-new-tokens", "2") for name in ("one", "two", "champion")),
    *(("sample", "--model", f"lake/runs/lab/local/{name}/model.zip", "--prompt", "A") for name in ("one", "two")),
    *(("export", "--model", name, "--format", "gguf", "--output", "out.gguf") for name in ("one", "two", "champion")),
    ("export", "--model", "one", "--format", "zip", "--output", "out.zip"),
    ("export", "--model", "lake/runs/lab/local/one/model.zip", "--format", "folder", "--output", "out"),
    ("check-metrics", "lake/runs/lab/local/one/stats/metrics.csv"),
    ("embed", "--run", "two", "--neighbours", "the"),
    ("embed", "--run", "two", "--set", "embed.seed=2"),
    *((step, "--config", f"lake/runs/lab/local/{run}/config.json", "--engine", "inline")
      for step in ("tokenize", "windows", "embed", "train", "generate", "score", "evaluate")
      for run in ("one", "two")),
    *(tuple(worlds.run_arguments(run)) for run in ("one", "two")),
    (*worlds.run_arguments("one")[:-2], "--run-id", "next", "--set", "train.init=champion"),
    (*worlds.run_arguments("one")[:-2], "--run-id", "next", "--set", "tokenize.tokenizer=inherit"),
)  # fmt: skip


_RANDOM_LETTERS = re.compile(r"-[0-9a-f]{12}\.")
"""Random in the names of shards; a case depends on its id alone."""
_UNREAD = frozenset({"progress", "tensorboard", "metrics"})


def _near(arguments: tuple[str, ...]) -> set[str]:
    """Return the names of the folders below ``lake/*`` that a command reads."""
    words = " ".join(arguments)
    names = {name for name in worlds.RUNS if name in words}
    if "champion" in words:
        names |= {"first", "champion.json"}
    return names | ({"tokens", "windows", "embeddings"} if not words.startswith(("sample", "export")) else set())


@family("lake")
def _lake(rng: Random, folder: Path) -> Case:
    """A command that would work, on a lake of which some files are damaged, missing or no files."""
    folder = worlds.inner_folder(folder)
    lake = worlds.copy_lake(folder)
    arguments = rng.choice(_COMMANDS)
    shown = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.15:
            shown.append(_swap(rng, lake))
            continue
        files = sorted(
            (path for path in lake.rglob("*") if path.is_file() and not path.is_symlink() and os.access(path, 4)),
            key=lambda path: _RANDOM_LETTERS.sub(".", str(path)),
        )
        near = [path for path in files if path.relative_to(lake).parts[1] in _near(arguments)]
        files = near if near and rng.random() < 0.8 else files
        weights = [0 if path.parent.name in _UNREAD else 4 if path.suffix == ".json" else 1 for path in files]
        (path,) = rng.choices(files, weights)
        shown.append(f"{path.relative_to(folder)} {_spoil(rng, path)}")
        if "model" in path.parent.name and path.name != "_manifest.json" and rng.random() < 0.6:
            _seal(path.parent)
    if rng.random() < 0.2:
        shown.append(_pack_anew(rng, lake))
    if rng.random() < 0.2:  # the steps have something to make
        for name in rng.sample(("generate", "model", "train"), rng.randint(1, 2)):
            shutil.rmtree(lake / "runs/lab/local/one" / name)
    command = Command(arguments, is_damaged=True)
    return Case(f"{command}; {'; '.join(shown)}", partial(check, command, folder, lake), lake)
