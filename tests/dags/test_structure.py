"""The structure of the DAGs, and the cost of parsing them."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
from airflow.dag_processing.dagbag import DagBag

from infra.airflow.environment import PROJECT_ROOT
from jobs.config import flat_schema

pytestmark = pytest.mark.slow

ORDER = [
    "preflight",
    "upload_package",
    "sweep",
    "create_cluster",
    "tokenize",
    "windows",
    "embed",
    "train",
    "generate",
    "terminate_cluster",
    "verdict",
]
RESULTS = ["generate", "pull_stats", "promote", "verdict"]
HEAVY = ["torch", "pyspark", "pyarrow", "gigatoken", "tokenizers", "boto3", "airflow.providers.amazon", "pandas"]


@pytest.fixture(scope="module")
def dags():
    bag = DagBag(PROJECT_ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture(scope="module")
def train_llm(dags):
    return dags["train_llm"]


def test_tasks_are_in_order(train_llm):
    for first, second in (*pairwise(ORDER), *pairwise(RESULTS)):
        assert second in train_llm.get_task(first).downstream_task_ids
    assert set(train_llm.task_ids) == {*ORDER, *RESULTS}


def test_setups_and_teardowns(train_llm):
    kinds = {task.task_id: (task.is_setup, task.is_teardown) for task in train_llm.tasks}
    assert {name for name, (setup, _) in kinds.items() if setup} == {"sweep", "create_cluster"}
    assert {name for name, (_, teardown) in kinds.items() if teardown} == {"terminate_cluster", "verdict"}
    for name in ("terminate_cluster", "verdict"):
        assert train_llm.get_task(name).on_failure_fail_dagrun
    assert {"sweep", "create_cluster"} <= train_llm.get_task("terminate_cluster").upstream_task_ids


def test_nothing_can_skip_the_teardown(train_llm):
    assert train_llm.dagrun_timeout is None
    assert train_llm.max_active_runs == 1
    assert not train_llm.catchup


def test_statistics_are_always_pulled_and_promotion_needs_all_steps(train_llm):
    assert train_llm.get_task("pull_stats").trigger_rule == "all_done"
    assert {"generate", "pull_stats"} <= train_llm.get_task("promote").upstream_task_ids


def test_every_task_is_retried(train_llm, dags):
    assert min(task.retries for task in [*train_llm.tasks, *dags["reap_clusters"].tasks]) >= 1
    for name in ("preflight", "verdict"):
        task = train_llm.get_task(name)
        assert sum(30 * 2**retry for retry in range(task.retries)) > 600  # seconds with the default poll_seconds


@pytest.mark.parametrize("cleared", ["pull_stats", "promote", "verdict"])
def test_clearing_a_task_that_needs_no_cluster_starts_none(train_llm, cleared):
    """As Airflow's clear does: with all tasks after it, and the setups that belong to it."""
    tasks = train_llm.partial_subset([cleared], include_downstream=True, include_upstream=False).task_dict
    assert {"sweep", "create_cluster"}.isdisjoint(tasks)


@pytest.mark.parametrize("cleared", ["tokenize", "generate"])
def test_clearing_a_step_ends_the_cluster_and_starts_another(train_llm, cleared):
    tasks = train_llm.partial_subset([cleared], include_downstream=False, include_upstream=False).task_dict
    assert {"sweep", "create_cluster", "terminate_cluster"} <= set(tasks)


def test_runs_that_make_no_sense_are_refused(train_llm, dags):
    assert {kind.value for kind in train_llm.allowed_run_types} == {"scheduled", "manual", "operator_triggered"}
    assert {kind.value for kind in dags["reap_clusters"].allowed_run_types} == {"scheduled", "manual"}


def test_every_task_has_a_description(train_llm):
    assert [task.task_id for task in train_llm.tasks if not task.doc_md] == []


def test_form_has_a_field_for_every_setting(train_llm):
    assert set(train_llm.params) == {"corpus", "preset"} | set(flat_schema())
    assert [task.task_id for task in train_llm.tasks if task.params] == []  # twelve copies took 1 MB of the database


def test_every_task_links_to_the_folder_of_its_run(train_llm):
    links = {task.task_id: [link.name for link in task.operator_extra_links] for task in train_llm.tasks}
    assert [task for task, names in links.items() if names[0] != "Run folder"] == []
    assert links["train"] == ["Run folder", "Cluster", "Step logs", "Model"]
    assert all(len(names) == len({*names}) for names in links.values())


def test_reaper_is_scheduled(dags):
    assert dags["reap_clusters"].timetable.expression == "*/30 * * * *"
    assert not dags["reap_clusters"].catchup
    assert dags["reap_clusters"].is_paused_upon_creation is False


def parse(**environ):
    """Import the DAG file in a new process after Airflow, and return the heavy modules and seconds that it added."""
    code = f"""
import json, sys, time
import airflow.sdk, airflow.triggers.base
sys.path.insert(0, {str(PROJECT_ROOT / "dags")!r})
before, started = set(sys.modules), time.process_time()
import train_llm
seconds = time.process_time() - started
heavy = [name for name in {HEAVY!r} if name in set(sys.modules) - before]
print(json.dumps({{"heavy": heavy, "seconds": seconds, "schedule": str(train_llm.dag.schedule)}}))
"""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW_CONN", "AWS_", "NIGHTJAR"))
    }
    env = {**clean, **environ}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_parsing_needs_no_connection_and_imports_nothing_heavy():
    found = parse()
    assert found["heavy"] == []
    assert found["seconds"] < 10  # of CPU time; 0.3 on a quiet machine
    assert found["schedule"] == "None"


def test_environment_sets_the_schedule():
    assert "CronTriggerTimetable" in parse(NIGHTJAR_SCHEDULE="0 2 * * *", NIGHTJAR_LAKE="s3://lakes/x")["schedule"]
