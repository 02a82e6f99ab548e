"""The unpacked bundle runs the whole DAG in another Airflow, with nothing set but the lake."""

import sys

import boto3
import pytest

from jobs.lake.uri import join
from tests.mwaa.conftest import LAKE
from tests.support.real_job import CONF, assert_complete, poems

pytestmark = [pytest.mark.mwaa, pytest.mark.timeout(1800)]

CORPUS = join(LAKE.uri, "corpora/poems.txt")


def test_the_dag_runs_with_nothing_set_but_the_lake(elsewhere):
    with elsewhere("with") as there:
        sys.stdout.write(f"Airflow {there.ask('version')['version']}\n")
        there.store.write_bytes(CORPUS, poems())
        state, run = there.train("r", {"corpus": CORPUS, **CONF})
        states = there.states("r")
        assert state == "success", [(task, there.log("r", task)[-2000:]) for task in states if states[task] == "failed"]
        assert {states.pop(step) for step in ("embed", "score", "evaluate")} == {"skipped"}
        assert set(states.values()) == {"success"}
        assert_complete(run, there.store, ("tokenize", "windows", "train", "generate"), there.home / "stats")
        clusters = boto3.client("emr", endpoint_url=there.airflow.emr_endpoint).list_clusters()["Clusters"]
        assert [each["Status"]["State"] for each in clusters] == ["TERMINATED"]


def test_without_aiobotocore_the_preflight_refuses_the_run(elsewhere):
    with elsewhere("without") as there:
        there.store.write_bytes(CORPUS, poems())
        state, _ = there.train("r", {"corpus": CORPUS, **CONF})
        assert state == "failed"
        assert there.states("r")["preflight"] == "failed"
        assert "install apache-airflow-providers-amazon[aiobotocore]" in there.log("r", "preflight")
        assert boto3.client("emr", endpoint_url=there.airflow.emr_endpoint).list_clusters()["Clusters"] == []
