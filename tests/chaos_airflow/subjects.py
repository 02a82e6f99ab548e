"""The DAGs that ``make chaos-airflow`` disturbs: ours, and a plain one of the provider's operators for comparison."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.airflow.environment import PROJECT_ROOT
from jobs.config import STEPS, of_run, resolve
from jobs.lake.layout import Lake, Run
from jobs.lake.store import Store
from jobs.lake.uri import to_uri
from nightjar.emr import requests
from tests.support.airflow import STANDIN

PLAIN_DAG = Path(__file__).parent / "plain" / "plain.py"


class Subject(ABC):
    """A DAG whose runs are disturbed. Both do the same steps on the same kind of cluster."""

    dag_id: str
    first_task: str

    @abstractmethod
    def prepare(self, run: Run, corpus: str, store: Store) -> Mapping[str, Any]:
        """Return the values of the trigger form, after making what the DAG itself does not make."""

    @abstractmethod
    def cluster_name(self, run: Run) -> str:
        """Return the name of the run's clusters."""


class Ours(Subject):
    """The DAG `train_llm`."""

    dag_id, first_task = "train_llm", "preflight"

    def prepare(self, run: Run, corpus: str, store: Store) -> Mapping[str, Any]:
        """Return the values of the form; the DAG makes the rest."""
        return {"corpus": corpus, "preset": "tiny"}

    def cluster_name(self, run: Run) -> str:
        """Return the name of the run's clusters."""
        return requests.ClusterIdentity(run).name


class Plain(Subject):
    """The DAG `plain`. Its package and the configuration of its runs are in the lake before."""

    dag_id, first_task = "plain", "create"

    def prepare(self, run: Run, corpus: str, store: Store) -> Mapping[str, Any]:
        """Write package and configuration, and return the requests that the operators send."""
        # It imports Airflow, which needs a home of its own before.
        from nightjar.tasks import package

        config = of_run.claim(run, resolve(to_uri(corpus), "tiny"), store)
        uri = package.upload(Lake(run.lake_uri), STANDIN, store)
        flow = requests.run_job_flow(config, requests.ClusterIdentity(run), datetime.now(UTC), uri)
        # What ends a cluster that was left, and what finds it again, are no part of a plain DAG.
        flow = {key: value for key, value in flow.items() if key not in ("AutoTerminationPolicy", "Tags")}
        names = [step for step in STEPS if step in config.steps]
        steps = [requests.add_step("plain", name, config, run, uri)["Steps"][0] for name in names]
        # Without it, the last step would run although an earlier one has failed.
        steps = [{**step, "ActionOnFailure": "CANCEL_AND_WAIT"} for step in steps]
        return {"flow": {**flow, "Name": self.cluster_name(run)}, "steps": steps}

    def cluster_name(self, run: Run) -> str:
        """Return the name of the run's clusters."""
        return f"plain/{run.run_id}"


SUBJECTS: Mapping[str, Subject] = {subject.dag_id: subject for subject in (Ours(), Plain())}


def dags_folder(folder: Path) -> Path:
    """Return a folder with both DAGs. The judge plays the reaper, whose own DAG would make calls in between."""
    place = folder / "dags"
    if not place.exists():
        shutil.copytree(PROJECT_ROOT / "dags", place, ignore=shutil.ignore_patterns("__pycache__", "reap_*"))
        shutil.copy(PLAIN_DAG, place)
    return place
