"""Training runs in which a worker, an executor or the driver is killed at a random time.

Each run is a separate driver (``python -m jobs train``) on a small dataset. A killed driver is started again. The
expected result comes from an undisturbed run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.emr.spark_home import find_spark
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import base_name, join
from jobs.training.checkpoint import complete_checkpoints
from tests.support.handmade import make_datasets, make_run, train_tokenizer
from tests.support.processes import inline_workers

CHECKPOINT_EVERY = 20
MASTER = "local-cluster[2,1,768]"
LIMIT_SECONDS = 300
SETTINGS = {
    "train__workers": 2,
    "train__epochs": 8,
    "train__eval_every": 100,
    "train__checkpoint_every": CHECKPOINT_EVERY,
    "train__sync_every": CHECKPOINT_EVERY,
    "train__keep_checkpoints": 99,
    "train__keep_best": False,
    "train__max_restarts": 2,
    "spark__executor_memory": "768m",
}


@dataclass(frozen=True)
class Case:
    """A training and the process to kill: `victim` is ``none``, ``worker``, ``executor`` or ``driver``."""

    strategy: str
    engine: str
    victim: str
    seed: int = 0

    @property
    def moment(self) -> float:
        """Random time of the kill: checkpoint intervals after the first checkpoint, of eight in a run."""
        return random.Random(f"{self}").uniform(1, 6)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run."""

    stats: dict
    weights: bytes
    samples: list[str]
    seconds: float
    drivers: int
    checkpoint_at_kill: int | None
    """Step of the latest checkpoint at the kill; None without a kill."""
    resumed_from: int | None
    """Step from which training resumed; None if it did not have to, such as after the retry of a task."""


class Chaos:
    """A folder with a dataset and the runs that train on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = Lake((folder / "lake").as_uri())
        self.undisturbed: dict[tuple[str, str], Outcome] = {}
        make_datasets(self.place, train_tokenizer())

    def expected(self, case: Case) -> Outcome:
        """Return the outcome of the undisturbed run with the case's strategy and engine; train it once."""
        key = (case.strategy, case.engine)
        if key not in self.undisturbed:
            self.undisturbed[key] = self.outcome(Case(*key, "none"))
        return self.undisturbed[key]

    def outcome(self, case: Case) -> Outcome:
        """Run a case and kill its victim; return the outcome."""
        name = f"{case.strategy}-{case.engine}-{case.victim}-{case.seed}"
        run, _ = make_run(self.place, name, train__strategy=case.strategy, **SETTINGS)
        started, drivers, at_kill = time.monotonic(), 1, None
        process = self._start(case, run)
        try:
            if case.victim != "none":
                at_kill = self._kill(case, run, process)
            if process.wait(LIMIT_SECONDS) and case.victim == "driver":
                drivers += 1
                process = self._start(case, run)
            assert process.wait(LIMIT_SECONDS) == 0, (self.folder / f"{name}.log").read_text()[-3000:]
        finally:
            process.kill()
        seconds = time.monotonic() - started
        weights = store.read_bytes(join(run.model, "model.safetensors"))
        rows = store.read_bytes(run.metrics).decode().splitlines()
        samples = [row.partition('"samples": "')[2][:8] for row in rows]
        stats = store.read_json(run.step_stats("train"))
        return Outcome(stats, weights, samples, seconds, drivers, at_kill, _resumed_from(run))

    def _start(self, case: Case, run: Run) -> subprocess.Popen:
        command = [sys.executable, "-m", "jobs", "train", "--config", run.config, "--engine", case.engine]
        environment = dict(os.environ)
        if case.engine == "spark":
            command += ["--master", MASTER]
            environment["SPARK_HOME"] = str(self._spark_home())
        with (self.folder / f"{run.run_id}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        if case.engine == "inline" and hasattr(psutil.Process, "cpu_affinity"):
            # One thread per worker: on a busy machine, several threads that wait for each other take ten times as long.
            psutil.Process(process.pid).cpu_affinity([psutil.Process().cpu_affinity()[case.seed % 2 - 1]])
        return process

    def _spark_home(self) -> Path:
        """Make a Spark installation of links, since executors of a local cluster write to ``SPARK_HOME/work``."""
        home = self.folder / "spark"
        if not home.exists():
            home.mkdir()
            for entry in find_spark().iterdir():
                (home / entry.name).symlink_to(entry)
        return home

    def _kill(self, case: Case, run: Run, process: subprocess.Popen) -> int | None:
        """Kill the victim at the case's moment; return the latest checkpoint's step, or None if the run ended first."""
        deadline = time.monotonic() + LIMIT_SECONDS
        whole, part = divmod(case.moment, 1)
        seen: dict[int, float] = {}
        while len(seen) < 1 + whole or time.monotonic() < _later(seen, part):
            for step in complete_checkpoints(run):
                if step:
                    seen.setdefault(step, time.monotonic())
            if process.poll() is not None or time.monotonic() > deadline:
                return None
            time.sleep(0.02)
        victims = _victims(case, psutil.Process(process.pid))
        if not victims or store.exists(run.metrics):
            return None
        steps = complete_checkpoints(run)
        random.Random(case.seed).choice(victims).kill()
        return steps[-1]


def _later(seen: dict[int, float], intervals: float) -> float:
    """Return the time that is `intervals` after the newest checkpoint; an interval is the mean of those in `seen`."""
    first, last = min(seen.values()), max(seen.values())
    return last + intervals * (last - first) / (len(seen) - 1)


def _victims(case: Case, driver: psutil.Process) -> list[psutil.Process]:
    if case.victim == "driver":
        return [driver]
    if case.engine == "inline" and case.victim == "worker":
        return inline_workers(driver)
    return [child for child in driver.children(recursive=True) if _is_victim(case, child)]


def _is_victim(case: Case, process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        if case.victim == "executor":
            return "CoarseGrainedExecutorBackend" in command
        return "pyspark.daemon" in command and "pyspark.daemon" in " ".join(process.parent().cmdline())
    except psutil.Error:  # it has ended meanwhile
        return False


def _resumed_from(run: Run) -> int | None:
    """Return the step from which the second attempt began; None if there was none."""
    parts = [info.uri for info in store.list_files(run.metrics_parts)]
    second = [uri for uri in parts if base_name(uri).startswith("part-0001-")]
    if not second:
        return None
    first_row = store.read_bytes(second[0]).decode().partition(",")[0]
    return int(first_row.rpartition(" ")[2]) - 1
