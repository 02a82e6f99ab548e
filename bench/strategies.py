"""``make bench-strategies``: validation loss at equal tokens against bytes moved, for each way in which workers agree.

All runs see the same batches in the same order. The workers of a run are tasks of the inline engine, one thread each,
one after another: their number decides the loss and the bytes, not the seconds. Gradients summed over workers give
the weights that one worker gets, but for rounding, so `allreduce` is trained once, by one worker, and its bytes are
computed for each number of workers. Each core of this machine takes a run at a time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

from bench.table import show
from bench.text import MB, WORK, folder_of
from jobs.config import resolve
from jobs.engine.base import Result, WorkerContext, single_worker
from jobs.engine.inline import InlineEngine
from jobs.lake.layout import Lake
from jobs.lake.store import read_json, write_bytes, write_json
from jobs.lake.uri import to_uri
from jobs.pipeline import run_step
from jobs.steps import train

SETTINGS: dict[str, Any] = {
    "train.max_tokens": 819_200,  # 800 steps, 5 tokens a parameter
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.eval_every": 100_000,
    "train.eval_windows": 4096,
    "train.state_every": 1000,
    "train.keep_best": False,
    "train.dtype": "float32",
    "spark.executors": 8,
    "log_level": "WARN",
}
LAKE = WORK / "strategies-lake"
LOCAL_STEPS = (10, 20, 30, 100)
WORKERS = (2, 4)


@dataclass(frozen=True)
class Variant:
    """A way to train, as settings of the section `train`."""

    strategy: str
    workers: int
    sync_every: int = 0
    delta_dtype: str = "float32"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.strategy}, {self.delta_dtype}" if self.sync_every > 1 else self.strategy

    @property
    def settings(self) -> dict[str, Any]:
        """As dotted keys."""
        names = ("strategy", "workers", "sync_every", "delta_dtype")
        return {f"train.{name}": getattr(self, name) for name in names}


@dataclass(frozen=True)
class Figures:
    """What a run cost and gave."""

    loss: float
    sync_bytes: int
    tokens: int
    gradient_bytes: int
    """Of all steps, of one worker."""
    cpu_seconds: float


class OneThread(InlineEngine):
    """The inline engine with one thread for each worker."""

    def task_threads(self, num_tasks: int) -> int:
        """One."""
        return 1

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run the only member in this process."""
        assert workers == 1
        return function(single_worker(1))


def main() -> None:
    """Measure and print."""
    make_data()
    variants = []
    for workers in WORKERS:
        variants.append(Variant("average", workers, LOCAL_STEPS[0]))
        variants += [Variant("diloco", workers, steps, "int8") for steps in LOCAL_STEPS]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        base, *figures = pool.map(measure, [Variant("allreduce", 1), *variants])
    rows = []
    for workers in WORKERS:
        whole = 2 * (workers - 1) * base.gradient_bytes  # in a ring, each sends all but its own share, twice
        rows.append(_row(Variant("allreduce", workers, 1), replace(base, sync_bytes=whole), base, whole))
        found = zip(variants, figures, strict=True)
        rows += [_row(variant, each, base, whole) for variant, each in found if variant.workers == workers]
    columns = ("", "workers", "local steps", "validation loss", "worse by", "MB moved", "share", "CPU s")
    show(
        f"Validation loss after {base.tokens:,} tokens against bytes moved, load {os.getloadavg()[0]:.0f}",
        columns,
        rows,
    )


def make_data() -> None:
    """Tokens and windows of the text, in a lake of their own."""
    shutil.rmtree(LAKE, ignore_errors=True)
    run = Lake(to_uri(str(LAKE))).run("data")
    config = resolve(to_uri(str(folder_of(5 * MB))), "tiny", {"log_level": "WARN"})
    write_bytes(run.config, config.to_json().encode())
    for step in ("tokenize", "windows"):
        run_step(step, run, config, InlineEngine())


def measure(variant: Variant) -> Figures:
    """Train a variant on the data's windows, from nothing."""
    lake = Lake(to_uri(str(LAKE)))
    run = lake.run(f"{variant.strategy}-{variant.workers}-{variant.sync_every}")
    config = resolve("none", "tiny", SETTINGS | variant.settings)
    write_bytes(run.config, config.to_json().encode())
    write_json(run.datasets, read_json(lake.run("data").datasets))
    started = time.process_time()
    stats = train.run(run, config, OneThread(), lambda _: None)
    gradient_bytes = 4 * stats["num_parameters"] * stats["num_steps"]
    seconds = time.process_time() - started
    print(f"  {run.run_id}: {stats['valid_loss']:.4f} after {seconds:.0f} CPU s", flush=True)
    return Figures(stats["valid_loss"], stats["sync_bytes"], stats["num_tokens"], gradient_bytes, seconds)


def _row(variant: Variant, figures: Figures, base: Figures, whole: int) -> tuple[str, ...]:
    return (
        variant.name,
        str(variant.workers),
        str(variant.sync_every),
        f"{figures.loss:.4f}",
        f"{figures.loss / base.loss - 1:.1%}",
        f"{figures.sync_bytes / MB:,.1f}",
        f"1/{whole / figures.sync_bytes:.0f}",
        f"{figures.cpu_seconds:.0f}",
    )


if __name__ == "__main__":
    main()
