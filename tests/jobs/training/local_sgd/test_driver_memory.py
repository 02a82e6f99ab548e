"""The memory of the rounds' driver does not grow with the number of workers; measured in separate processes."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from jobs.lake.layout import Lake
from jobs.training.job import TrainingJob
from jobs.training.memory import peak_resident_bytes
from jobs.training.supervision.shutdown import ShutdownSignal
from tests.support.handmade import FINGERPRINT, make_datasets, make_run, train_tokenizer
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.long]

BIG = {"model__num_layers": 1, "model__embedding_size": 512, "model__hidden_size": 1024, "train__sync_every": 2,
       "train__batch_size": 8, "train__max_tokens": 6 * 8 * 16, "spark__executors": 8}  # fmt: skip


class Pool:
    """An engine that runs tasks in another process, like Spark."""

    name = "pool"

    def __init__(self):
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))

    def map(self, function, items, description):
        return list(self._pool.map(function, items))

    def task_threads(self, num_tasks):
        return 1


def drive(lake, workers):
    """Drive a run of 2.6 million parameters; print the peak memory of this process."""
    from jobs.training.local_sgd.driver import Rounds

    run, config = make_run(Lake(lake), workers, **BIG, train__strategy="diloco", train__workers=int(workers))
    assert Rounds(TrainingJob(run, config, FINGERPRINT), Pool()).run(ShutdownSignal()).is_complete
    sys.stdout.write(f"{peak_resident_bytes()}\n")


def test_the_drivers_memory_does_not_grow_with_the_number_of_workers(tmp_path):
    place = Lake((tmp_path / "lake").as_uri())
    make_datasets(place, train_tokenizer())
    few, many = (peak_of(place.uri, workers) for workers in (2, 8))
    assert few > 100e6
    assert many < 1.1 * few


def peak_of(lake, workers):
    command = [sys.executable, "-m", "tests.jobs.training.local_sgd.test_driver_memory", lake, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    drive(*sys.argv[1:])
