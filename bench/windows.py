"""``make bench-windows``: windows as offsets into a token stream against stored copies, at stride 1 and size 128.

It measures the bytes on disk, and the windows per second that one core reads: in random order by the data loader, in
random order from stored copies, and as views of consecutive windows.
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
from jobs.lake.cache import verified_file
from jobs.lake.layout import Lake, Run
from jobs.lake.store import list_files, read_json, read_manifest, write_bytes
from jobs.lake.uri import to_uri
from jobs.pipeline import run_step

SIZE = 128
BATCH = 1024
SECONDS = 2.0


def main() -> None:
    """Measure and print the results."""
    run = _make()
    lake, name = Lake(run.lake_uri), read_json(run.datasets)["windows"]
    windows = WindowSet.open(lake, name, "train")
    ours = sum(info.size for info in list_files(lake.dataset("windows", name)) if "/train/" in info.uri)
    rows = _store_copies(windows)
    stored = rows.nbytes
    show(
        f"Bytes of {windows.num_windows:,} windows of {SIZE} inputs and a target, stride 1",
        ("", "MB", "share"),
        [
            ("stream and offsets", f"{ours / MB:.1f}", f"{ours / stored:.2%}"),
            ("stored copies (uint16)", f"{stored / MB:.1f}", "100%"),
        ],
    )
    target("percent of the bytes of copies", 100 * ours / stored, 2, at_most=True)
    stream = _first_stream(lake, name)
    views = np.lib.stride_tricks.sliding_window_view(stream, SIZE + 1)
    draws = np.random.default_rng(0).integers(0, min(len(views), windows.windows_per_shard[0]), (64, BATCH))
    speeds = {
        "data loader: random order, to int64": _speed(lambda i: windows.read(draws[i % 64])),
        "stored copies: random order, to int64": _speed(lambda i: rows[draws[i % 64]].astype(np.int64)),
        "token stream: random order, as stored": _speed(lambda i: views[draws[i % 64]]),
        "token stream: views of consecutive windows": _speed(lambda i: views[draws[i % 64][0] :][:BATCH]),
    }
    lines = [(name, f"{speed / 1e6:.2f}") for name, speed in speeds.items()]
    show(f"Windows read on one core, {BATCH} at a time", ("", "million/s"), lines)
    loader, copies, _, views_speed = speeds.values()
    target("million windows/s as views", views_speed / 1e6, 5)
    print(f"  data loader / stored copies: {loader / copies:.2f}")


def _make() -> Run:
    """Make tokens and windows of the text in a new lake, and return the run."""
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


def _store_copies(windows: WindowSet) -> npt.NDArray[np.uint16]:
    """Store every window as a row of a file, and return the memory-mapped rows."""
    path = WORK / "rows.npy"
    shape = (windows.num_windows, SIZE + 1)
    rows = np.lib.format.open_memmap(path, "w+", np.uint16, shape)
    for start in range(0, windows.num_windows, 1 << 16):
        ids = np.arange(start, min(windows.num_windows, start + (1 << 16)))
        rows[ids] = windows.read(ids)
    return np.asarray(rows)


def _first_stream(lake: Lake, name: str) -> npt.NDArray[np.integer]:
    """Return the tokens of the first shard, memory-mapped."""
    import pyarrow as pa

    manifest = read_manifest(lake.dataset("windows", name))
    assert manifest
    with pa.memory_map(str(verified_file(lake.dataset("windows", name), manifest.entries("train/")[0]))) as source:
        column: Any = pa.ipc.open_file(source).get_batch(0).column("tokens")
    return np.asarray(column.values.to_numpy())


def _speed(read: Callable[[int], Any]) -> float:
    """Return the windows per second of a function that reads batch `i`."""
    for i in range(64):
        read(i)
    calls, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SECONDS:
        read(calls)
        calls += 1
    return calls * BATCH / seconds


if __name__ == "__main__":
    main()
