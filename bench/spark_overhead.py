"""``make bench-spark``: the overhead of Spark in training, against the same loop in a plain process.

One worker with one thread trains the same steps alternately in a Spark task and in a plain process. The results are the
medians of all steps after the first twenty, in seconds and CPU seconds. The benchmark also measures the start of a
worker group: from the driver's call until all workers are in one `torch.distributed` group. Finally it measures the
overhead of a round beyond its training.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.table import show, target
from jobs.config import Config, SparkConfig
from jobs.engine.base import WorkerContext, single_worker
from jobs.engine.spark import SparkEngine
from jobs.lake.layout import Lake, Run
from jobs.metrics.columns import StepRow
from jobs.steps import train
from jobs.training.metrics_writer import read_parts
from tests.support.handmade import FINGERPRINT, make_datasets, make_run, metrics, train_tokenizer

PAIRS = 3
FIRST_STEPS = 20
SIZE = 64
SETTINGS = {
    "windows__size": SIZE, "model__num_layers": 4, "model__embedding_size": 128, "model__hidden_size": 352,
    "train__batch_size": 16, "train__epochs": 1000, "train__max_tokens": 80 * 16 * SIZE, "train__eval_every": 1000,
    "train__keep_best": False, "train__checkpoint_every": 1000,
}  # fmt: skip


def train_one_thread(worker: WorkerContext, run: Run, config: Config) -> None:
    """Train as a single worker with one thread."""
    from jobs.training.job import TrainingJob
    from jobs.training.worker import train_worker

    train_worker(replace(worker, threads=1), TrainingJob(run, config, FINGERPRINT))


def train_in_process(run: Run, config: Config) -> None:
    """Train in this process, without an engine."""
    train_one_thread(single_worker(1), run, config)


def compare_steps(lake: Lake, engine: SparkEngine) -> None:
    """Train alternately in both ways, and print the times of a step and their ratios."""
    rows: dict[str, list[StepRow]] = {"plain": [], "spark": []}
    for number in range(PAIRS):
        run, config = make_run(lake, f"plain-{number}", **SETTINGS)
        process = multiprocessing.get_context("spawn").Process(target=train_in_process, args=(run, config))
        process.start()
        process.join()
        rows["plain"] += read_parts(run)[FIRST_STEPS:]
        run, config = make_run(lake, f"spark-{number}", **SETTINGS)
        engine.run_worker_group(partial(train_one_thread, run=run, config=config), 1, "one worker")
        rows["spark"] += read_parts(run)[FIRST_STEPS:]
    clock = {way: statistics.median(row["step_milliseconds"] for row in found) for way, found in rows.items()}
    cpu = {
        way: statistics.median(row["step_milliseconds"] * row["cpu_load"] for row in found)
        for way, found in rows.items()
    }
    header = ("one worker, one thread", "ms a step", "CPU ms a step")
    show("Spark beside a plain process", header, [(way, f"{clock[way]:.1f}", f"{cpu[way]:.1f}") for way in rows])
    target("Spark / plain, by the clock", clock["spark"] / clock["plain"], 1.02, at_most=True)
    target("Spark / plain, by CPU", cpu["spark"] / cpu["plain"], 1.02, at_most=True)


def join_group(worker: WorkerContext) -> float:
    """Join the worker group, and return the time at which it was complete."""
    from jobs.training import process_group

    with process_group.join_group(worker, 60):
        return time.time()


def measure_start(engine: SparkEngine) -> None:
    """Print the seconds for starting a worker group, in new Python processes and in existing ones."""
    seconds = []
    for _ in range(4):
        started = time.time()
        seconds.append(engine.run_worker_group(join_group, 2, "start") - started)
    target("start of two workers in new processes, s", seconds[0], 4, at_most=True)
    target("start of two workers in existing processes, s", statistics.median(seconds[1:]), 4, at_most=True)


def measure_round(lake: Lake, engine: SparkEngine) -> None:
    """Print the seconds of a round in which its workers did not train."""
    settings = {"train__strategy": "diloco", "train__sync_every": 20, "train__workers": 2}
    run, config = make_run(lake, "rounds", **SETTINGS | settings)
    train.run(run, config, engine, lambda _: None)
    rows = metrics(run)
    overhead = [sum(row["sync_milliseconds"] for row in rows[i : i + 20]) / 1000 for i in range(0, len(rows), 20)]
    print(f"  overhead of a round: {statistics.median(overhead[1:]):.2f} s (median of {len(overhead) - 1})")


def main() -> None:
    """Run all three measurements."""
    load = os.getloadavg()
    print(f"load at the start {load[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="nightjar-bench-") as folder:
        lake = Lake(Path(folder).as_uri())
        make_datasets(lake, train_tokenizer(), size=SIZE)
        engine = SparkEngine(SparkConfig(), master="local[2]")
        measure_start(engine)
        compare_steps(lake, engine)
        measure_round(lake, engine)
        engine.stop()
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
