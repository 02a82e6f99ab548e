"""`train_llm` from end to end with the real job, of whose two workers one is killed.

A whole run of the real job on S3 is in `tests/infra/aws/test_deployment.py`.
"""

import signal
import threading
import time

import psutil
import pytest

from infra.airflow.environment import PROJECT_ROOT
from jobs.lake.layout import Lake
from nightjar.aws import store
from tests.support import airflow
from tests.support.real_job import CONF, assert_complete, poems

pytestmark = [pytest.mark.airflow, pytest.mark.spark, pytest.mark.long]


@pytest.fixture
def emr(tmp_path):
    """An embedded EMR that runs Spark."""
    with airflow.emr_process(tmp_path / "emr") as running:
        yield running


@pytest.mark.timeout(1800)
def test_run_survives_a_killed_worker(headless, emr, tmp_path):
    lake, text = Lake((tmp_path / "my läke").as_uri()), tmp_path / "some poems é.txt"
    text.write_bytes(poems())
    killed = threading.Event()
    threading.Thread(target=kill_a_worker, args=(tmp_path, killed), daemon=True).start()
    done = headless(lake.uri, {**CONF, "corpus": str(text), "train.epochs": 20}, PROJECT_ROOT)
    assert done.code == 0, done.log[-3000:]
    assert emr.clusters(done.run.run_id) == ["TERMINATED"]
    steps = assert_complete(done.run, store(), ("tokenize", "windows", "train", "generate"), done.stats_dir)
    assert killed.is_set()
    assert steps["train"]["restarts"] == 1


def kill_a_worker(folder, killed, limit_seconds=1200):
    """After the first checkpoint, kill the training process that has used the most CPU time."""
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline and not list(folder.glob("*/runs/*/*/*/train/checkpoints/*/_manifest.json")):
        time.sleep(0.02)
    workers = [process for process in psutil.process_iter() if is_worker(process, folder.as_uri())]
    max(workers, key=lambda process: sum(process.cpu_times()[:2])).send_signal(signal.SIGKILL)
    killed.set()


def is_worker(process, lake_uri):
    """Return whether a process is a Python worker of a spark-submit with `lake_uri` in its command line."""
    try:
        above = [" ".join(parent.cmdline()) for parent in process.parents()]
        return "pyspark.daemon" in " ".join(process.cmdline()) and any(lake_uri in line for line in above[1:])
    except psutil.Error:
        return False
