"""``make bench-tokenize``: our tokenize step beside what others offer; same text, same cores, one run.

Ours is measured end to end on Spark (read from the lake, check, encode, write verified shards) with a given
tokenizer, at several sizes; slow peers get less text, of which the smaller of two runs is subtracted, so that what
starting costs does not count against them.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes import measured
from bench.table import show, target
from bench.text import MB, WORK, documents, folder_of, original
from jobs.tokens.bpe import train_bpe
from jobs.tokens.tokenizer import Tokenizer

CORES = int(os.environ.get("CORES", os.cpu_count() or 1))
SIZES_MB = [int(size) for size in (os.environ.get("SIZES_MB") or "10 100 1000").split()]
PEER_MB = int(os.environ.get("PEER_MB", "16"))
PEERS = ("datatrove", "tokenizers", "tiktoken")


def main() -> None:
    """Measure and print."""
    WORK.mkdir(parents=True, exist_ok=True)
    tokenizer = WORK / "tokenizer.json"
    tokenizer.write_bytes(train_bpe(original().split(b"\n\n"), 8192))
    ours = {size: _ours(size, tokenizer, "spark") for size in SIZES_MB}
    peers = {name: _peer(name, tokenizer) for name in PEERS}
    raw = _gigatoken(tokenizer)
    largest, _ = ours[SIZES_MB[-1]]
    speed = largest["bytes"] / largest["seconds"] / MB
    rows = [(f"ours, end to end on Spark, {SIZES_MB[-1]} MB", f"{speed:.1f}", "1")]
    rows += [(name, f"{value:.1f}", f"{speed / value:.2f}") for name, value in {**peers, "gigatoken, raw": raw}.items()]
    show(f"Text encoded on {CORES} cores", ("", "MB/s", "ours / this"), rows)
    target("ours / datatrove", speed / peers["datatrove"], 20)
    target("ours / raw gigatoken", speed / raw, 0.5)
    _show_sizes(ours)
    _show_parts(ours, _ours(SIZES_MB[min(1, len(SIZES_MB) - 1)], tokenizer, "inline")[0])


def _ours(size: int, tokenizer: Path, engine: str) -> tuple[dict[str, Any], dict[str, int]]:
    lake = WORK / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    arguments = [str(folder_of(size * MB)), str(tokenizer), str(lake), engine, str(CORES)]
    one_thread = {"OMP_NUM_THREADS": "1"} if engine == "inline" else {}
    found = measured([sys.executable, "-m", "bench.ours", *arguments], one_thread)
    shutil.rmtree(lake, ignore_errors=True)
    return found


def _peer(name: str, tokenizer: Path) -> float:
    """MB/s in steady state: of the larger text without what the smaller one took."""
    runs = []
    for size in (PEER_MB // 4, PEER_MB):
        arguments = [name, str(tokenizer), str(folder_of(size * MB)), str(CORES)]
        found, _ = measured([".venv-bench/bin/python", "bench/peers.py", *arguments])
        _check(name, found, tokenizer, folder_of(size * MB))
        runs.append(found)
    small, large = runs
    return float((large["bytes"] - small["bytes"]) / (large["seconds"] - small["seconds"]) / MB)


def _check(name: str, found: dict[str, Any], tokenizer: Path, folder: Path) -> None:
    """A peer that made other tokens did other work."""
    texts = documents(folder)
    ids, offsets = Tokenizer(tokenizer.read_bytes()).encode_batch([text.encode() for text in texts], True)
    ends = len(texts) if name == "datatrove" else 0  # it writes the end-of-text tokens too
    if found["tokens"] != len(ids) + ends or found["first"] not in ([], ids[: offsets[1]][:20].tolist()):
        print(f"  {name} made {found['tokens']:,} tokens, ours are {len(ids) + ends:,}")


def _gigatoken(tokenizer: Path) -> float:
    """MB/s of the encoder alone, in memory, of the best of three runs."""
    texts = [text.encode() for text in documents(folder_of(SIZES_MB[min(1, len(SIZES_MB) - 1)] * MB))]
    loaded = Tokenizer(tokenizer.read_bytes())._tokenizer
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        np.asarray(loaded.encode_batch(texts, parallel=True).layout.content.data)
        seconds.append(time.perf_counter() - started)
    return sum(map(len, texts)) / min(seconds) / MB


def _show_sizes(ours: dict[int, tuple[dict[str, Any], dict[str, int]]]) -> None:
    rows = []
    for size, (found, peaks) in ours.items():
        speed = found["bytes"] / found["seconds"] / MB
        memory = (f"{peaks[kind] / MB:.0f}" for kind in ("driver", "jvm", "worker"))
        rows.append((f"{size} MB", f"{found['session']:.1f}", f"{found['seconds']:.1f}", f"{speed:.1f}", *memory))
    header = ("our step on Spark", "start s", "step s", "MB/s", "driver MB", "JVM MB", "worker MB")
    show("Sizes, and the peak memory of each kind of process", header, rows)
    drivers = [peaks["driver"] / MB for _, peaks in ours.values()]
    target("growth of the driver in MB", max(drivers) - drivers[0], 50, at_most=True)


def _show_parts(ours: dict[int, tuple[dict[str, Any], dict[str, int]]], inline: dict[str, Any]) -> None:
    rest = inline["seconds"] - sum(inline["parts"].values())
    parts = {**inline["parts"], "the rest": rest}
    rows = [(name, f"{seconds:.2f}", f"{seconds / inline['seconds']:.0%}") for name, seconds in parts.items()]
    show(f"Where time goes: inline, one core, {inline['bytes'] / MB:.0f} MB", ("part", "s", "share"), rows)
    largest = ours[SIZES_MB[-1]][0]
    stages = [
        (stage["description"], str(stage["tasks"]), f"{stage['seconds']:.2f}", f"{stage['task_seconds']:.2f}")
        for stage in largest["stages"]
    ]
    outside = largest["seconds"] - sum(stage["seconds"] for stage in largest["stages"])
    stages.append(("outside of stages", "", f"{outside:.2f}", ""))
    show(f"Where time goes: Spark, {SIZES_MB[-1]} MB", ("stage", "tasks", "s", "task s"), stages)


if __name__ == "__main__":
    main()
