"""The same run on threads, on processes and on YARN gives the same datasets, samples and losses."""

import pytest

from jobs.config import resolve
from jobs.lake import store
from jobs.lake.layout import Lake
from nightjar.emr.requests import add_step
from nightjar.packaging.build import build
from tests.support.handmade import metrics
from tests.support.real_job import poems
from tests.yarn.conftest import BUCKET, Yarn

pytestmark = pytest.mark.yarn

KINDS = ("threads", "processes", "yarn")
SETTINGS = {
    "train.dtype": "float32",
    "train.workers": 2,
    "train.epochs": 30,
    "train.max_tokens": 60_000,
    "train.eval_every": 10,
    "spark.executors": 2,
    "spark.executor_cores": 1,
    "spark.executor_memory": "600m",
    "spark.executor_overhead": "2g",
    "spark.driver_memory": "600m",
}


def test_the_same_run_is_the_same_on_each_kind_of_executors(yarn: Yarn):
    yarn.s3.put_object(Bucket=BUCKET, Key="corpora/poems.txt", Body=poems())
    found = {kind: outcome(yarn, kind) for kind in KINDS}
    for kind in KINDS[1:]:
        for name in ("tokens", "windows", "samples"):
            assert found[kind][name] == found["threads"][name], (kind, name)
            assert found[kind][name]
        assert found[kind]["losses"] == pytest.approx(found["threads"]["losses"], abs=1e-4), kind
    assert len(found["yarn"]["losses"]) > 20


def outcome(yarn: Yarn, kind: str) -> dict[str, list]:
    """Run all steps but `generate` with one kind of executors, in a lake of its own; return what they wrote."""
    lake = Lake(f"s3://{BUCKET}/{kind}")
    for name, data in build().files.items():
        store.write_bytes(f"{lake.uri}/package/{name}", data)
    config, run = resolve(f"s3://{BUCKET}/corpora/poems.txt", "tiny", SETTINGS), lake.run("same")
    store.write_bytes(run.config, config.to_json().encode())
    with yarn.cluster(executors=kind) as cluster:
        for step in ("tokenize", "windows", "train"):
            args = add_step(cluster, step, config, run, f"{lake.uri}/package")["Steps"][0]["HadoopJarStep"]["Args"]
            state, logs = yarn.wait(cluster, yarn.submit(cluster, *args, name=step))
            assert state == "COMPLETED", logs[-6000:]
    datasets = store.read_json(run.datasets)
    files = {name: store.read_manifest(lake.dataset(name, datasets[name])).files for name in ("tokens", "windows")}
    rows = metrics(run)
    return {
        # A file's name ends with a random part.
        **{name: [(file.name.rpartition("-")[0], file.sha256) for file in each] for name, each in files.items()},
        "samples": [row["samples"] for row in rows],
        "losses": [row["loss"] for row in rows],
    }
