"""A real Airflow with four runs of the real job: two that are done, one that failed, and one that goes on."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.airflow.standalone import LocalAirflow, call, local_airflow, login
from jobs.lake import store
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from tests.support.pages import Runs

LIMIT_SECONDS = 900.0
SHORT_TEXT = "Too short a text for a window."


@dataclass(frozen=True)
class Nights:
    """A running Airflow, and the runs of its lake."""

    airflow: LocalAirflow
    token: str
    runs: Runs


@contextmanager
def nights(folder: Path, corpus: Path, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Nights]:
    """Run Airflow, and trigger runs as its trigger form does.

    Args:
        folder: A folder for the lake, and for Airflow's files.
        corpus: The text to train on.
        first: The settings of the run that is done first. The failed run and the one that goes on have them as well.
        second: The settings of the second one, beside those of the first.
    """
    lake = Lake((folder / "my lake").as_uri())
    env = {"NIGHTJAR_STATS_DIR": str(folder / "stats"), "NIGHTJAR_POLL_SECONDS": "0.5"}
    with local_airflow(folder / "airflow home", lake.uri, extra_env=env) as airflow:
        token = login(airflow.url, airflow.password)
        dag = f"{airflow.url}/api/v2/dags/train_llm/dagRuns"

        def trigger(run_id: str, **conf: Any) -> Run:
            chosen = {"corpus": str(corpus), **first, **conf}
            call(dag, {"dag_run_id": run_id, "logical_date": None, "conf": chosen}, token)
            return lake.run(run_id, DEFAULT)

        def ended(run_id: str, expected: str, **conf: Any) -> Run:
            run, deadline = trigger(run_id, **conf), time.monotonic() + LIMIT_SECONDS
            while (state := call(f"{dag}/{run_id}", token=token)["state"]) not in ("success", "failed"):
                assert time.monotonic() < deadline, state
                time.sleep(1)
            assert state == expected, call(f"{dag}/{run_id}/taskInstances", token=token)
            return run

        done = ended("baseline", "success"), ended("higher-learning-rate", "success", **second)
        short = folder / "short.txt"
        short.write_text(SHORT_TEXT)
        failed = ended("text-too-short", "failed", corpus=str(short))
        live = trigger(
            "in-progress", **{"train.epochs": 1000, "train.max_tokens": 1_000_000_000, "train.max_seconds": 3600}
        )
        deadline = time.monotonic() + LIMIT_SECONDS
        while not store.list_files(live.metrics_parts):
            assert time.monotonic() < deadline
            time.sleep(1)
        yield Nights(airflow, token, Runs(*done, failed, live))
