"""The inline engine and Spark make the same datasets, the same sample order, and the same model."""

import json
import re
import signal
import threading
import time

import psutil
import pytest
from pyspark import SparkContext

from jobs.config import SparkConfig
from jobs.engine.inline import InlineEngine
from jobs.engine.spark import SparkEngine
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, to_uri
from jobs.pipeline import run_all, start_run
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long

POEM = "some say the world will end in fire and some say in ice from what they tasted of desire"
SETTINGS = {
    "tokenize.split_bytes": 4096,
    "tokenize.vocab_size": 400,
    "windows.size": 32,
    "windows.shard_tokens": 1000,
    "train.dtype": "float32",
    "train.workers": 2,
    "train.epochs": 2,
    "train.eval_every": 10,
    "train.checkpoint_every": 10,
    "generate.num_samples": 2,
}


@pytest.fixture(scope="module")
def spark():
    engine = SparkEngine(SparkConfig(), master="local[2,4]")
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    words = POEM.split()
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("b c.txt", "a.txt"):
        lines = (" ".join(words[(i * j + len(name)) % len(words)] for j in range(3, 19)) for i in range(200))
        (folder / name).write_text("\n\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def on_spark(spark, corpus, tmp_path_factory):
    """An undisturbed run with two workers on Spark."""
    return finish(spark, corpus, tmp_path_factory.mktemp("spark"))


def finish(engine, corpus, folder, **settings):
    home = Lake(to_uri(str(folder)))
    run = start_run(home.run("r"), str(corpus), "tiny", {**SETTINGS, **settings})
    return home, run, run_all(run, engine)


def content(manifest):
    """Return the content of a dataset without the random part of its file names."""
    return [(entry.name.split("-")[0], entry.size, entry.sha256, entry.counts) for entry in manifest.files]


def metrics(run, *columns):
    rows = store.read_bytes(run.metrics).decode().splitlines()
    return [[row[column] for column in columns] for row in map(json.loads, rows)]


def test_both_engines_make_the_same_datasets_and_model(on_spark, corpus, tmp_path):
    """Compare two workers on Spark with one inline worker; losses are equal but for rounding."""
    home, one, _ = finish(InlineEngine(), corpus, tmp_path / "inline", **{"train.workers": 1})
    other, two, stats = on_spark
    first, second = store.read_json(one.datasets), store.read_json(two.datasets)
    assert first == second
    for kind in ("tokens", "windows"):
        ours = store.read_manifest(home.dataset(kind, first[kind]))
        theirs = store.read_manifest(other.dataset(kind, first[kind]))
        assert content(ours) == content(theirs)
        assert len(ours.files) > 4
    assert metrics(one, "step", "samples", "learning_rate") == metrics(two, "step", "samples", "learning_rate")
    losses = zip(metrics(one, "loss"), metrics(two, "loss"), strict=True)
    assert max(abs(ours - theirs) for (ours,), (theirs,) in losses) < 1e-4
    stages = [(step, stage["status"], stage["tasks"]) for step in stats for stage in stats[step]["stages"]]
    assert ("train", "COMPLETE", 2) in stages
    assert {step for step, _, _ in stages} == {"tokenize", "windows", "train", "generate"}


def test_both_engines_evaluate_a_model_alike(spark, on_spark, corpus):
    home, trained, _ = on_spark
    losses, statistics = [], []
    for engine in (InlineEngine(), spark):
        settings = {"use.model": trained.run_id, "use.task": "evaluate", "tokenize.split_bytes": 4096}
        run = start_run(home.run(f"evaluated-{engine.name}"), str(corpus), "tiny", settings)
        stats = run_all(run, engine)["evaluate"]
        files = store.read_manifest(run.evaluation).files
        lines = [line for entry in files for line in store.read_file(run.evaluation, entry).splitlines()]
        losses.append([json.loads(line)["loss"] for line in lines])
        statistics.append([stats[key] for key in ("num_documents", "num_bytes", "num_files")])
    assert statistics[0] == statistics[1] == [400, sum(file.stat().st_size for file in corpus.iterdir()) - 2 * 398, 2]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[0]) == 400
    [stage] = [stage for stage in stats["stages"] if stage["description"] == "evaluate"]
    assert stage["tasks"] > 4


def test_training_resumes_from_the_checkpoint_after_a_worker_was_killed(spark, on_spark, corpus, tmp_path):
    _, undisturbed, _ = on_spark
    home = Lake(to_uri(str(tmp_path)))
    checkpoint = home.run("r").checkpoint(10)
    killer = threading.Thread(target=kill_a_worker_when, args=(lambda: store.list_files(checkpoint),), daemon=True)
    killer.start()
    _, run, stats = finish(spark, corpus, tmp_path)
    killer.join(PATIENCE_SECONDS)
    assert not killer.is_alive()
    assert stats["train"]["restarts"] == 1
    assert metrics(run, "step", "samples", "loss") == metrics(undisturbed, "step", "samples", "loss")
    ours = store.read_manifest(undisturbed.model)
    theirs = store.read_manifest(run.model)
    assert content(ours) == content(theirs)


def kill_a_worker_when(is_time, limit_seconds=PATIENCE_SECONDS):
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline and not is_time():
        time.sleep(0.02)
    workers = [process for process in psutil.Process().children(recursive=True) if is_worker(process)]
    busiest = max(workers, key=lambda process: sum(process.cpu_times()[:2]))
    busiest.send_signal(signal.SIGKILL)


def is_worker(process):
    """Return True for a Python worker of Spark, and False for the daemon that forks the workers."""
    try:
        return all("pyspark.daemon" in " ".join(each.cmdline()) for each in (process, process.parent()))
    except psutil.Error:  # it has ended meanwhile
        return False


def test_rounds_with_a_killed_worker_equal_those_of_the_inline_engine(spark, corpus, tmp_path):
    settings = {"train.strategy": "diloco", "train.sync_every": 10, "train.epochs": 6, "train.state_every": 1,
                "train.keep_checkpoints": 9}  # fmt: skip
    _, inline, expected = finish(InlineEngine(), corpus, tmp_path / "inline", **settings)
    home = Lake(to_uri(str(tmp_path / "spark")))

    def is_in_second_round():
        first_is_over = store.list_files(home.run("r").checkpoint(10))
        return first_is_over and SparkContext.getOrCreate().statusTracker().getActiveStageIds()

    killer = threading.Thread(target=kill_a_worker_when, args=(is_in_second_round,), daemon=True)
    killer.start()
    _, run, stats = finish(spark, corpus, tmp_path / "spark", **settings)
    killer.join(PATIENCE_SECONDS)
    assert not killer.is_alive()
    stages = [stage for stage in stats["train"]["stages"] if stage["description"].startswith("steps ")]
    assert sum(stage["failed_tasks"] for stage in stages) == 1
    epochs = dict(metrics(run, "step", "epoch"))
    ended = [int(re.search(r"to (\d+)", stage["description"])[1]) for stage in stages]
    assert [stage["epoch"] for stage in stages] == [pytest.approx(epochs[step], abs=1e-3) for step in ended]
    assert stats["train"]["restarts"] == 0
    assert metrics(run, "step", "samples", "learning_rate") == metrics(inline, "step", "samples", "learning_rate")
    losses = zip(metrics(inline, "loss"), metrics(run, "loss"), strict=True)
    assert max(abs(ours - theirs) for (ours,), (theirs,) in losses) < 1e-4
    assert stats["train"]["valid_loss"] == pytest.approx(expected["train"]["valid_loss"], rel=1e-4)


def test_too_few_slots_are_an_error_before_training(spark, corpus, tmp_path):
    settings = {"train.workers": 3, "spark.executors": 3}
    with pytest.raises(store.InputError, match=r"train\.workers \(3\)"):
        finish(spark, corpus, tmp_path, **settings)
    stats = store.read_json(join(Lake(to_uri(str(tmp_path))).run("r").stats, "train.json"))
    assert "train.workers" in stats["error"]
