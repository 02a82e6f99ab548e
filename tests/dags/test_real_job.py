"""`train_llm` from end to end with the real job: two workers train on the embedded EMR from the uploaded package."""

import csv
import io
import signal
import threading
import time

import psutil
import pytest

from infra.airflow.environment import PROJECT_ROOT
from jobs.config import STEPS
from jobs.lake.layout import Lake
from jobs.lake.uri import join, relative_name
from nightjar.aws import store
from tests.support.airflow import BUCKET

pytestmark = [pytest.mark.airflow, pytest.mark.spark]

POEM = "some say the world will end in fire and some say in ice from what they tasted of desire"
CONF = {
    "tokenize.vocab_size": 400,
    "windows.size": 32,
    "train.epochs": 10,
    "train.embeddings": "embed",
    "embed.size": 64,
    "embed.epochs": 1,
    "train.eval_every": 50,
    "train.checkpoint_every": 10,
    "generate.max_new_words": 5,
}
FILES = {
    *("config.json", "datasets.json", "train/metrics.jsonl", "train/_manifest.json"),
    *("generate/generated.txt", "generate/samples.jsonl", "generate/_manifest.json"),
    *("model/config.json", "model/model.safetensors", "model/tokenizer.json"),
    *(f"stats/{name}" for name in ("stats.json", "metrics.csv", "spark.csv", "executors.csv", "stats.txt")),
    "train/tensorboard/events.out.tfevents.nightjar",
    *(f"stats/{step}.json" for step in STEPS),
}


@pytest.fixture(scope="module")
def poems(tmp_path_factory):
    words = POEM.split()
    path = tmp_path_factory.mktemp("text") / "some poems é.txt"
    lines = (" ".join(words[(i * j + i) % len(words)] for j in range(3, 17)) for i in range(500))
    path.write_text("\n\n".join(lines), "utf-8")
    return path


def assert_complete(done, emr):
    assert done.code == 0, done.log[-3000:]
    assert emr.clusters(done.run.run_id) == ["TERMINATED"]
    missing = FILES - {relative_name(file.uri, done.run.uri) for file in store().list_files(done.run.uri)}
    assert missing == set()
    stats = store().read_json(join(done.run.stats, "stats.json"))
    assert stats["valid_loss"] < stats["unigram_loss"]
    assert (done.stats_dir / done.run.run_id / "metrics.csv").is_file()
    rows = csv.DictReader(io.StringIO(store().read_bytes(join(done.run.stats, "spark.csv")).decode()))
    assert {row["step"] for row in rows if row["status"] == "COMPLETE"} == set(STEPS)
    return stats["steps"]


@pytest.mark.timeout(1800)
def test_run_on_s3_with_two_workers(headless, emr, aws, poems):
    lake = Lake(f"s3://{BUCKET}/real job")
    text = f"s3://{BUCKET}/texts/some poems é.txt"
    store().write_bytes(text, poems.read_bytes())
    done = headless(lake.uri, {**CONF, "corpus": text, "train.workers": 2}, PROJECT_ROOT)
    steps = assert_complete(done, emr)
    assert steps["train"]["workers"] == 2
    assert steps["tokenize"]["engine"] == "spark"
    assert "unigram" in done.log


@pytest.mark.timeout(1800)
def test_run_survives_a_killed_worker(headless, emr, poems, tmp_path):
    lake = Lake((tmp_path / "my läke").as_uri())
    killed = threading.Event()
    threading.Thread(target=kill_a_worker, args=(tmp_path, killed), daemon=True).start()
    conf = {**CONF, "corpus": str(poems), "train.workers": 2, "train.epochs": 20}
    steps = assert_complete(headless(lake.uri, conf, PROJECT_ROOT), emr)
    assert killed.is_set()
    assert steps["train"]["restarts"] == 1


def kill_a_worker(folder, killed, limit_seconds=1200):
    """After the first checkpoint, kill the training process that has used the most CPU time."""
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline and not list(folder.glob("*/runs/*/train/checkpoints/*/_manifest.json")):
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
