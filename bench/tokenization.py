"""``make bench-tokenize``: our tokenize step against other libraries, with the same text on the same cores.

Ours is measured end to end on Spark with a given tokenizer, at several sizes: read from the lake, check, encode, and
write shards with their hashes. Slower libraries get less text. A speed is the difference of two runs of different
sizes, so that start-up time does not count.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gigatoken
import numpy as np

from bench.measure import Usage, run_measured
from bench.table import show, target
from bench.text import MB, WORK, documents, folder_of, original
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import train_bpe

CORES = int(os.environ.get("CORES", os.cpu_count() or 1))
SIZES_MB = [int(size) for size in (os.environ.get("SIZES_MB") or "10 100 1000").split()]
PEER_MB = int(os.environ.get("PEER_MB", "12"))
PEERS = ("datatrove", "tokenizers", "tiktoken")
RAW_LIST, RAW_BUFFER = "gigatoken, raw, a list of documents", "gigatoken, raw, one buffer"
SEPARATOR = b"\0"  # not in any document


Measured = tuple[dict[str, Any], Usage]


@dataclass(frozen=True)
class Speed:
    """Speed in MB per second and MB per CPU second, without start-up time."""

    per_second: float
    per_cpu_second: float

    @classmethod
    def between(cls, small: Measured, large: Measured) -> Speed:
        """Return the speed from the difference of two runs."""
        size = (large[0]["bytes"] - small[0]["bytes"]) / MB
        seconds = large[0]["seconds"] - small[0]["seconds"]
        return cls(size / seconds, size / (large[1].cpu_seconds - small[1].cpu_seconds))


def main() -> None:
    """Measure and print the results."""
    WORK.mkdir(parents=True, exist_ok=True)
    tokenizer = WORK / "tokenizer.json"
    tokenizer.write_bytes(train_bpe(original().split(b"\n\n"), 8192))
    ours = {size: _ours(size, tokenizer, "spark") for size in SIZES_MB}
    _show_sizes(ours)
    _show_parts(ours[SIZES_MB[-1]][0], _ours(SIZES_MB[-2], tokenizer, "inline")[0])
    speed = Speed.between(ours[SIZES_MB[-2]], ours[SIZES_MB[-1]])
    peers = {name: _peer(name, tokenizer) for name in PEERS} | _gigatoken(tokenizer)
    rows = [
        (
            name,
            f"{peer.per_second:.1f}",
            f"{peer.per_cpu_second:.1f}",
            f"{speed.per_second / peer.per_second:.2f}",
            f"{speed.per_cpu_second / peer.per_cpu_second:.2f}",
        )
        for name, peer in {"ours, end to end on Spark": speed, **peers}.items()
    ]
    header = ("in steady state", "MB/s", "MB/CPU s", "ours / this", "by CPU")
    show(f"Text encoded on {CORES} cores", header, rows)
    target("ours / datatrove, by CPU", speed.per_cpu_second / peers["datatrove"].per_cpu_second, 20)
    for name in (RAW_LIST, RAW_BUFFER):
        target(f"ours / {name}, by CPU", speed.per_cpu_second / peers[name].per_cpu_second, 0.5)


def _ours(size: int, tokenizer: Path, engine: str) -> Measured:
    lake = WORK / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    arguments = [str(folder_of(size * MB)), str(tokenizer), str(lake), engine, str(CORES)]
    one_thread = {"OMP_NUM_THREADS": "1"} if engine == "inline" else {}
    found = run_measured([sys.executable, "-m", "bench.tokenize_step", *arguments], one_thread)
    shutil.rmtree(lake, ignore_errors=True)
    return found


def _peer(name: str, tokenizer: Path) -> Speed:
    runs = []
    for size in (PEER_MB // 4, PEER_MB):
        arguments = [name, str(tokenizer), str(folder_of(size * MB)), str(CORES)]
        runs.append(run_measured([".venv-bench/bin/python", "bench/tokenize_peers.py", *arguments]))
        _check(name, runs[-1][0], tokenizer, folder_of(size * MB))
    return Speed.between(*runs)


def _check(name: str, found: dict[str, Any], tokenizer: Path, folder: Path) -> None:
    """Report a library whose tokens differ from ours, because its speed is not comparable."""
    texts = documents(folder)
    ids, offsets = Tokenizer(tokenizer.read_bytes()).encode_batch([text.encode() for text in texts], True)
    ends = len(texts) if name == "datatrove" else 0  # it also writes the end-of-text tokens
    if found["tokens"] != len(ids) + ends or found["first"] not in ([], ids[: offsets[1]][:20].tolist()):
        print(f"  {name} made {found['tokens']:,} tokens, ours are {len(ids) + ends:,}")


def _gigatoken(tokenizer: Path) -> dict[str, Speed]:
    """Measure the encoder alone, in memory, on all cores: the best of five runs for a list and for one buffer."""
    texts = [text.encode() for text in documents(folder_of(SIZES_MB[-2] * MB))]
    loaded = gigatoken.Tokenizer.from_json(tokenizer.read_bytes())
    buffer = gigatoken.BytesSource([SEPARATOR.join(texts)], separator=SEPARATOR)
    size = sum(map(len, texts)) / MB
    best: dict[str, Speed] = {}
    for _ in range(5):
        for name, given in ((RAW_LIST, texts), (RAW_BUFFER, buffer)):
            started, cpu_started = time.perf_counter(), time.process_time()
            np.asarray(loaded.encode_batch(given, parallel=True).layout.content.data)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            so_far = best.get(name, Speed(0, 0))
            best[name] = Speed(max(so_far.per_second, size / seconds), max(so_far.per_cpu_second, size / cpu_seconds))
    return best


def _show_sizes(ours: dict[int, Measured]) -> None:
    rows = []
    for size, (found, usage) in ours.items():
        speed = found["bytes"] / found["seconds"] / MB
        memory = (f"{usage.peaks[kind] / MB:.0f}" for kind in ("driver", "jvm", "worker"))
        rows.append(
            (
                f"{size} MB",
                f"{found['session']:.1f}",
                f"{found['seconds']:.1f}",
                f"{speed:.1f}",
                f"{usage.cpu_seconds:.1f}",
                *memory,
            )
        )
    header = ("our step on Spark", "start s", "step s", "MB/s", "CPU s", "driver MB", "JVM MB", "worker MB")
    show("Size of the text, and peak memory by kind of process", header, rows)
    drivers = [usage.peaks["driver"] / MB for _, usage in ours.values()]
    target("growth of the driver's memory in MB", max(drivers) - drivers[0], 50, at_most=True)


def _show_parts(largest: dict[str, Any], inline: dict[str, Any]) -> None:
    rest = inline["seconds"] - sum(inline["parts"].values())
    parts = {**inline["parts"], "the rest": rest}
    rows = [(name, f"{seconds:.2f}", f"{seconds / inline['seconds']:.0%}") for name, seconds in parts.items()]
    show(f"Where time goes: inline, one core, {inline['bytes'] / MB:.0f} MB", ("part", "s", "share"), rows)
    stages = [
        (stage["description"], str(stage["tasks"]), f"{stage['seconds']:.2f}", f"{stage['task_seconds']:.2f}")
        for stage in largest["stages"]
    ]
    outside = largest["seconds"] - sum(stage["seconds"] for stage in largest["stages"])
    stages.append(("outside of stages", "", f"{outside:.2f}", ""))
    show(f"Where time goes: Spark, {SIZES_MB[-1]} MB", ("stage", "tasks", "s", "task s"), stages)


if __name__ == "__main__":
    main()
