"""``make bench-spark``: what Spark costs a training, beside the same loop in a plain process.

One worker with one thread trains the same steps in a Spark task and in a process of its own, in turns; figures are the
medians over all steps after the first twenty, by the clock and by CPU seconds. Then the start of a gang: from the
driver's call until all members are in one `torch.distributed` group. Then what a round costs beyond its training.
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
from jobs.steps import train
from jobs.training.metrics import Row, read_parts
from tests.support.handmade import FINGERPRINT, make_datasets, make_run, metrics, train_tokenizer

PAIRS = 3
FIRST_STEPS = 20
SIZE = 64
SETTINGS = {
    "windows__size": SIZE, "model__num_layers": 4, "model__embedding_size": 128, "model__hidden_size": 352,
    "train__batch_size": 16, "train__epochs": 1000, "train__max_tokens": 80 * 16 * SIZE, "train__eval_every": 1000,
    "train__keep_best": False, "train__checkpoint_every": 1000,
}  # fmt: skip


def one_thread(member: WorkerContext, run: Run, config: Config) -> None:
    """Train as a gang of one with one thread."""
    from jobs.training.worker import train_worker

    train_worker(replace(member, threads=1), run, config, FINGERPRINT)


def plainly(run: Run, config: Config) -> None:
    """The same in a process of its own."""
    one_thread(single_worker(1), run, config)


def in_pairs(place: Lake, engine: SparkEngine) -> None:
    """Alternate both ways and print their ratios."""
    rows: dict[str, list[Row]] = {"plain": [], "spark": []}
    for number in range(PAIRS):
        run, config = make_run(place, f"plain-{number}", **SETTINGS)
        process = multiprocessing.get_context("spawn").Process(target=plainly, args=(run, config))
        process.start()
        process.join()
        rows["plain"] += read_parts(run)[FIRST_STEPS:]
        run, config = make_run(place, f"spark-{number}", **SETTINGS)
        engine.run_worker_group(partial(one_thread, run=run, config=config), 1, "one worker")
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


def formed(member: WorkerContext) -> float:
    """Join the group of the gang; return when that was done."""
    from jobs.training.process_group import joined

    with joined(member, 60):
        return time.time()


def start_of_a_gang(engine: SparkEngine) -> None:
    """How long it takes until the members of a gang are one group: in new processes, and in ones that are there."""
    seconds = []
    for _ in range(4):
        started = time.time()
        seconds.append(engine.run_worker_group(formed, 2, "start") - started)
    target("start of a gang of two, new processes, s", seconds[0], 4, at_most=True)
    target("the same in processes that are there, s", statistics.median(seconds[1:]), 4, at_most=True)


def cost_of_a_round(place: Lake, engine: SparkEngine) -> None:
    """The seconds of a round that its workers did not train."""
    settings = {"train__strategy": "diloco", "train__sync_every": 20, "train__workers": 2}
    run, config = make_run(place, "rounds", **SETTINGS | settings)
    train.run(run, config, engine, lambda _: None)
    rows = metrics(run)
    overhead = [sum(row["sync_milliseconds"] for row in rows[i : i + 20]) / 1000 for i in range(0, len(rows), 20)]
    print(
        f"  a round costs {statistics.median(overhead[1:]):.2f} s beyond its training (median of {len(overhead) - 1})"
    )


def main() -> None:
    """Run all three."""
    load = os.getloadavg()
    print(f"load at the start {load[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="nightjar-bench-") as folder:
        place = Lake(Path(folder).as_uri())
        make_datasets(place, train_tokenizer(), size=SIZE)
        engine = SparkEngine(SparkConfig(), master="local[2]")
        start_of_a_gang(engine)
        in_pairs(place, engine)
        cost_of_a_round(place, engine)
        engine.stop()
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
