"""Record nights on the embedded EMR: ``python -m tests.support.recorded_nights OUTPUT``.

The corpus grows from night to night, by a little or to twice its size, and one night trains twice as long. Each step is
a real process of the packaged job, without a JVM. What an estimate is made of is written in the form that
`tests.jobs.prices.test_estimate` reads.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.text import MB, original
from infra.airflow.environment import environment
from infra.airflow.processes import GuardedProcess, wait_until
from infra.airflow.standalone import EMR_READY_MESSAGE, emr_command
from jobs.cli.ports import free_port
from jobs.config import Config, of_run, resolve
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join
from tests.support.no_spark import no_spark

PIECES = (4, 5, 5, 6, 7, 12, 12, 13, 9, 14)
"""Number of files in the corpus of each night."""
PIECE_BYTES = MB // 12
EPOCHS = {7: 1.0}
"""Passes over the text in nights that train longer than others."""
SETTINGS: dict[str, Any] = {"train.max_tokens": None, "train.workers": 2, "train.eval_every": 200}
KEPT = ("seconds", "started", "num_bytes", "num_tokens", "num_train_windows", "num_steps", "training_seconds", "reused")
"""The statistics that are recorded."""


def main() -> None:
    """Run the nights, and write what was recorded."""
    text = original()
    with tempfile.TemporaryDirectory(prefix="nightjar-nights-") as name:
        folder = Path(name)
        endpoint = f"http://127.0.0.1:{free_port(0)}"
        os.environ |= no_spark(folder, "--engine inline")
        os.environ |= environment(folder / "airflow", (folder / "lake").as_uri(), endpoint)
        command = emr_command(folder, "s3://lakes", endpoint)
        with GuardedProcess("emr", command, os.environ, folder / "emr.log") as process:
            wait_until(lambda: process.has_logged(EMR_READY_MESSAGE), "no embedded EMR", [process], 120)
            nights = [run_night(number, text, folder) for number in range(len(PIECES))]
    lines = ",\n".join(json.dumps(night, separators=(",", ":")) for night in nights)
    Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n", "utf-8")


def run_night(number: int, text: bytes, folder: Path) -> dict[str, Any]:
    """Run one night on a cluster of its own, and return what an estimate is made of."""
    from nightjar import aws
    from nightjar.emr.records import ClusterRecords
    from nightjar.packaging.build import PROJECT_ROOT
    from nightjar.tasks.package import upload
    from nightjar.tasks.placement import place

    store, lake = aws.store(), Lake((folder / "lake").as_uri())
    corpus = write_corpus(folder / "corpus", text, PIECES[number])
    run = lake.run(f"night-{number:02}", "default")
    chosen = place(resolve(str(corpus), "tiny", {**SETTINGS, "train.epochs": EPOCHS.get(number, 0.5)}))
    config, package = of_run.claim(run, chosen, store), upload(lake, PROJECT_ROOT)
    run_on_cluster(run, config, package)
    stats = store.read_json(join(run.stats, "stats.json"))["steps"]
    record = ClusterRecords(run, store).read()[0]
    spans = (record.used or {})["steps"]
    times = (f"{span['name']} {span['ended'] - span['started']:.1f} s" for span in spans)
    sys.stderr.write(f"night {number}: {', '.join(times)}\n")
    return {
        "config": config.model_dump(mode="json"),
        "corpus_bytes": sum(path.stat().st_size for path in corpus.iterdir()),
        "steps": {name: {key: each[key] for key in KEPT if key in each} for name, each in stats.items()},
        "used": record.used,
    }


def run_on_cluster(run: Run, config: Config, package: str) -> str:
    """Run the steps of a run on a cluster of its own, as the DAG's tasks do, end the cluster, and return its id."""
    from nightjar import aws
    from nightjar.emr import requests
    from nightjar.emr.run_clusters import RunClusters

    clusters = RunClusters(aws.emr_client, aws.store(), requests.ClusterIdentity(run), 0.5)
    cluster_id = clusters.acquire(config, package)
    try:
        for step in config.steps:
            _run_step(run, requests.add_step(cluster_id, step, config, run, package))
    finally:
        clusters.end()
    return cluster_id


def write_corpus(folder: Path, text: bytes, pieces: int) -> Path:
    """Replace the files of a folder by the first `pieces` of a text, one in each file."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for piece in range(pieces):
        (folder / f"{piece:03}.txt").write_bytes(text[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES])
    return folder


def _run_step(run: Run, request: dict[str, Any]) -> None:
    """Run a step, and wait for its end."""
    from nightjar import aws
    from nightjar.emr import requests, steps

    client = aws.emr_client()
    step_id = steps.submit_step(client, request)
    while True:
        state = steps.describe_step(client, request["JobFlowId"], step_id)["Status"]["State"]
        if state == "COMPLETED":
            return
        if state not in requests.ACTIVE_STEP_STATES:
            raise RuntimeError(f"{run.run_id}: {request['Steps'][0]['Name']} is {state}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
