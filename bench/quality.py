"""``make bench-quality TEXT=path``: seconds of training to a given quality, against nanoGPT's recipe for a CPU.

Both sides train on the first 90% of the text and are validated on the last 10%, in bits per byte. Ours is the train
step of the pipeline, with a vocabulary learned from the first 90%. The time is that of the training steps, without
validation. The time of tokenizing is printed separately. Our loss includes the end-of-text tokens between paragraphs,
but the bytes of the blank lines between paragraphs are not counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from bench.nanogpt_peer import STEPS, Training
from bench.table import show, target
from jobs.config import parse_settings
from jobs.engine.base import WorkerContext, single_worker
from jobs.engine.inline import InlineEngine
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import to_uri
from jobs.pipeline import read_config, run_step, start_run
from jobs.tokenizer.train import train_bpe
from jobs.training.metrics_writer import read_parts

Result = TypeVar("Result")
VALID_FRACTION = 0.1
TARGETS = ((2.70, 8.0), (2.50, 18.0))
"""Bits per byte, and the maximum seconds for ours on two cores."""
SETTINGS = {
    "tokenize.vocab_size": 2048,
    "windows.size": 128,
    "windows.split": "tail",
    "windows.valid_fraction": VALID_FRACTION,
    "model.num_layers": 1,
    "model.embedding_size": 128,
    "model.hidden_size": 384,
    "model.num_heads": 2,
    "model.num_kv_heads": 2,
    "train.workers": 1,
    "train.optimizer": "muon",
    "train.learning_rate": 0.01,
    "train.schedule": "linear",
    "train.min_learning_rate_ratio": 0.0,
    "train.warmup_steps": 5,
    "train.weight_decay": 0.0,
    "train.beta2": 0.98,
    "train.batch_size": 8,
    "train.max_tokens": 300 * 8 * 128,
    "train.max_seconds": None,
    "train.eval_every": 20,
    "train.eval_windows": 1000,
    "train.checkpoint_every": 1_000_000,
}


@dataclass(frozen=True)
class Point:
    """The quality of a model after some steps of training."""

    steps: int
    seconds: float
    cpu_seconds: float
    bits_per_byte: float


class FixedThreadsEngine(InlineEngine):
    """The inline engine with a fixed number of threads for training."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run `function` in this process."""
        return function(single_worker(self._count))


def ours(text: bytes, overrides: dict[str, object], threads: int) -> list[Point]:
    """Train with the pipeline's steps, and return the quality at each validation."""
    with tempfile.TemporaryDirectory(prefix="nightjar-quality-") as folder:
        (Path(folder) / "text.txt").write_bytes(text)
        vocab_size = int(str((SETTINGS | overrides)["tokenize.vocab_size"]))
        tokenizer = Path(folder) / "tokenizer.json"
        tokenizer.write_bytes(train_bpe([text[: num_train(text)]], vocab_size))
        settings = {**SETTINGS, **overrides, "tokenize.tokenizer": to_uri(str(tokenizer))}
        run = start_run(Lake(to_uri(f"{folder}/lake")).run("quality"), f"{folder}/text.txt", "demo", settings)
        config, engine = read_config(run), FixedThreadsEngine(threads)
        started = time.perf_counter()
        for step in ("tokenize", "windows"):
            run_step(step, run, config, engine)
        print(f"tokenize and windows: {time.perf_counter() - started:.1f} s", flush=True)
        run_step("train", run, config, engine)
        assert store.read_manifest(run.model) is not None
        points, seconds, cpu_seconds = [], 0.0, 0.0
        for row in read_parts(run):
            seconds += row["step_milliseconds"] / 1000
            cpu_seconds += row["step_milliseconds"] / 1000 * row["cpu_load"]
            if "bits_per_byte" in row:
                points.append(Point(row["step"], seconds, cpu_seconds, row["bits_per_byte"]))
        return points


def theirs(text: bytes, every: int = 50) -> list[Point]:
    """Train with nanoGPT's recipe, and return the quality every `every` steps."""
    training = Training(text, num_train(text))
    points, seconds, cpu_seconds = [], 0.0, 0.0
    for step in range(STEPS):
        started, cpu = time.perf_counter(), time.process_time()
        training.step(step)
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu
        if (step + 1) % every == 0:
            points.append(Point(step + 1, seconds, cpu_seconds, training.bits_per_byte()))
    return points


def num_train(text: bytes) -> int:
    """Return the number of bytes in the training part of the text."""
    return int(len(text) * (1 - VALID_FRACTION))


def first(points: Sequence[Point], bits_per_byte: float) -> Point | None:
    """Return the first point that reaches the target, or None."""
    return next((point for point in points if point.bits_per_byte <= bits_per_byte), None)


def row(name: str, points: Sequence[Point], wanted: float) -> list[str]:
    """Return a row of the table."""
    point = first(points, wanted)
    if point is None:
        return [name, f"{wanted:.2f}", "-", "not reached", "-"]
    return [name, f"{wanted:.2f}", f"{point.steps:,}", f"{point.seconds:.1f}", f"{point.cpu_seconds:.1f}"]


def main() -> None:
    """Train both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, nargs="?", default=os.environ.get("TEXT"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="setting that overrides ours; may be repeated"
    )
    options = parser.parse_args()
    if options.text is None:
        parser.error("the text is missing: make bench-quality TEXT=path")
    text = Path(options.text).read_bytes()
    torch.set_num_threads(options.threads)
    sides = {"ours": ours(text, parse_settings(options.set), options.threads)}
    if not options.without_peer:
        sides["nanoGPT's recipe"] = theirs(text)
    show(
        f"{len(text) / 1e6:.2f} MB of text, {options.threads} threads, load {os.getloadavg()[0]:.1f}",
        ["side", "bits per byte", "steps", "seconds", "CPU seconds"],
        [row(name, points, wanted) for name, points in sides.items() for wanted, _ in TARGETS],
    )
    for name, points in sides.items():
        last = points[-1]
        print(f"  {name}: {last.bits_per_byte:.3f} bits per byte after {last.steps:,} steps,"
              f" {last.seconds:.1f} s, {last.cpu_seconds:.1f} CPU s")  # fmt: skip
    for wanted, seconds in TARGETS:
        point = first(sides["ours"], wanted)
        target(f"seconds to {wanted:.2f}", point.seconds if point else float("inf"), seconds, at_most=True)


if __name__ == "__main__":
    main()
