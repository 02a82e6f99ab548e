"""``make bench-windows``: windows as addresses in a stream beside windows that are stored, at stride 1 and size 128.

Bytes on disk, and windows per second that a training worker gets: in random order as rows of its own, as the loader
reads them, and as views of consecutive windows, which cost nothing until they are used.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.table import show, target
from bench.text import MB, WORK, folder_of, original
from jobs.config import resolve
from jobs.datasets.windows import WindowSet
from jobs.engine.inline import InlineEngine
from jobs.lake.layout import Lake, Run
from jobs.lake.store import list_files, read_json, read_manifest, verified_file, write_bytes
from jobs.lake.uri import to_uri
from jobs.pipeline import run_step

SIZE = 128
BATCH = 1024
SECONDS = 2.0


def main() -> None:
    """Measure and print."""
    run = _make()
    lake, name = Lake(run.lake_uri), read_json(run.datasets)["windows"]
    windows = WindowSet.open(lake, name, "train")
    ours = sum(info.size for info in list_files(lake.windows(name)) if "/train/" in info.uri)
    rows = _materialised(windows)
    stored = rows.nbytes
    show(
        f"Bytes of {windows.num_windows:,} windows of {SIZE} inputs and a target, stride 1",
        ("", "MB", "share"),
        [
            ("stream and addresses", f"{ours / MB:.1f}", f"{ours / stored:.2%}"),
            ("materialised (uint16)", f"{stored / MB:.1f}", "100%"),
        ],
    )
    target("share of the bytes in percent", 100 * ours / stored, 2, at_most=True)
    stream = _first_stream(lake, name)
    views = np.lib.stride_tricks.sliding_window_view(stream, SIZE + 1)
    draws = np.random.default_rng(0).integers(0, min(len(views), windows.windows_per_shard[0]), (64, BATCH))
    speeds = {
        "ours, loader: random, copied to int64": _speed(lambda i: windows.read(draws[i % 64])),
        "materialised: random, copied to int64": _speed(lambda i: rows[draws[i % 64]].astype(np.int64)),
        "ours, random, copied as stored": _speed(lambda i: views[draws[i % 64]]),
        "ours, views of consecutive windows": _speed(lambda i: views[draws[i % 64][0] :][:BATCH]),
    }
    lines = [(name, f"{speed / 1e6:.2f}") for name, speed in speeds.items()]
    show(f"Windows read on one core, {BATCH} at a time", ("", "million/s"), lines)
    loader, plain, _, viewed = speeds.values()
    target("million windows/s as views", viewed / 1e6, 5)
    print(f"  our loader / materialised: {loader / plain:.2f}")


def _make() -> Run:
    """Tokens and windows of the text, in a lake of their own."""
    lake = WORK / "windows-lake"
    shutil.rmtree(lake, ignore_errors=True)
    settings: dict[str, Any] = {"windows.size": SIZE, "windows.overlap": SIZE - 1, "log_level": "WARN"}
    text = folder_of(int(os.environ.get("WINDOWS_MB", "5")) * MB)
    assert original()
    run = Lake(to_uri(str(lake))).run("bench")
    config = resolve(to_uri(str(text)), "demo", settings)
    write_bytes(run.config, config.to_json().encode())
    for step in ("tokenize", "windows"):
        run_step(step, run, config, InlineEngine())
    return run


def _materialised(windows: WindowSet) -> npt.NDArray[np.uint16]:
    """Every window as a row of a file, memory-mapped."""
    path = WORK / "rows.npy"
    shape = (windows.num_windows, SIZE + 1)
    rows = np.lib.format.open_memmap(path, "w+", np.uint16, shape)
    for start in range(0, windows.num_windows, 1 << 16):
        ids = np.arange(start, min(windows.num_windows, start + (1 << 16)))
        rows[ids] = windows.read(ids)
    return np.asarray(rows)


def _first_stream(lake: Lake, name: str) -> npt.NDArray[np.integer]:
    """The tokens of the first shard, as they lie in its file."""
    import pyarrow as pa

    manifest = read_manifest(lake.windows(name))
    assert manifest
    with pa.memory_map(str(verified_file(lake.windows(name), manifest.entries("train/")[0]))) as source:
        column: Any = pa.ipc.open_file(source).get_batch(0).column("tokens")
    return np.asarray(column.values.to_numpy())


def _speed(read: Callable[[int], Any]) -> float:
    """Windows per second of a function that reads the batch of a number."""
    for i in range(64):
        read(i)
    calls, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SECONDS:
        read(calls)
        calls += 1
    return calls * BATCH / seconds


if __name__ == "__main__":
    main()
