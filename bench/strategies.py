"""``make bench-strategies``: validation loss after equal tokens against bytes moved, for each training strategy.

All runs use the same batches in the same order. The workers of a run are tasks of the inline engine, executed one after
another with one thread. So the results are losses and bytes, and seconds mean nothing. Except for rounding, all-reduce
gives the same weights for any number of workers. So it is trained once, with one worker, and its bytes are computed for
each number of workers. Each core of the machine executes one run at a time.
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
    """A training strategy, as settings of the section `train`."""

    strategy: str
    workers: int
    sync_every: int = 0
    delta_dtype: str = "float32"

    @property
    def name(self) -> str:
        """Name in the table."""
        return f"{self.strategy}, {self.delta_dtype}" if self.sync_every > 1 else self.strategy

    @property
    def settings(self) -> dict[str, Any]:
        """Settings with dotted keys."""
        names = ("strategy", "workers", "sync_every", "delta_dtype")
        return {f"train.{name}": getattr(self, name) for name in names}


@dataclass(frozen=True)
class Outcome:
    """The results of a run."""

    loss: float
    sync_bytes: int
    tokens: int
    gradient_bytes: int
    """Bytes of the gradients of all steps, for one worker."""
    cpu_seconds: float


class OneThread(InlineEngine):
    """The inline engine with one thread for each worker."""

    def task_threads(self, num_tasks: int) -> int:
        """Return one."""
        return 1

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run the only worker in this process."""
        assert workers == 1
        return function(single_worker(1))


def main() -> None:
    """Measure and print the results."""
    make_data()
    variants = []
    for workers in WORKERS:
        variants.append(Variant("average", workers, LOCAL_STEPS[0]))
        variants += [Variant("diloco", workers, steps, "int8") for steps in LOCAL_STEPS]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        base, *outcomes = pool.map(measure, [Variant("allreduce", 1), *variants])
    rows = []
    for workers in WORKERS:
        # A ring all-reduce moves 2 * (workers - 1) times the bytes of the gradients in total.
        allreduce = replace(base, sync_bytes=2 * (workers - 1) * base.gradient_bytes)
        rows.append(_row(Variant("allreduce", workers, 1), allreduce, allreduce))
        found = zip(variants, outcomes, strict=True)
        rows += [_row(variant, outcome, allreduce) for variant, outcome in found if variant.workers == workers]
    columns = ("", "workers", "local steps", "validation loss", "worse by", "MB moved", "share", "CPU s")
    show(
        f"Validation loss after {base.tokens:,} tokens against bytes moved, load {os.getloadavg()[0]:.0f}",
        columns,
        rows,
    )


def make_data() -> None:
    """Make tokens and windows of the text in a new lake."""
    shutil.rmtree(LAKE, ignore_errors=True)
    run = Lake(to_uri(str(LAKE))).run("data")
    config = resolve(to_uri(str(folder_of(5 * MB))), "tiny", {"log_level": "WARN"})
    write_bytes(run.config, config.to_json().encode())
    for step in ("tokenize", "windows"):
        run_step(step, run, config, InlineEngine())


def measure(variant: Variant) -> Outcome:
    """Train a variant from random weights, and return its results."""
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
    return Outcome(stats["valid_loss"], stats["sync_bytes"], stats["num_tokens"], gradient_bytes, seconds)


def _row(variant: Variant, outcome: Outcome, allreduce: Outcome) -> tuple[str, ...]:
    return (
        variant.name,
        str(variant.workers),
        str(variant.sync_every),
        f"{outcome.loss:.4f}",
        f"{outcome.loss / allreduce.loss - 1:.1%}",
        f"{outcome.sync_bytes / MB:,.1f}",
        f"1/{allreduce.sync_bytes / outcome.sync_bytes:.0f}",
        f"{outcome.cpu_seconds:.0f}",
    )


if __name__ == "__main__":
    main()
