"""The structure of the DAGs, and the cost of parsing them."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.serialization.serialized_objects import DagSerialization

from infra.airflow.environment import PROJECT_ROOT
from jobs.config import flat_schema

pytestmark = pytest.mark.slow

ORDER = [
    "preflight",
    "has_changed",
    "take_turn",
    "upload_package",
    "sweep",
    "create_cluster",
    "tokenize",
    "windows",
    "embed",
    "train",
    "generate",
    "score",
    "terminate_cluster",
    "verdict",
]
EVALUATION = ["create_cluster", "evaluate", "terminate_cluster"]
RESULTS = ["score", "pull_stats", "promote", "verdict"]
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
    for first, second in (*pairwise(ORDER), *pairwise(EVALUATION), *pairwise(RESULTS)):
        assert second in train_llm.get_task(first).downstream_task_ids
    assert set(train_llm.task_ids) == {*ORDER, *EVALUATION, *RESULTS}


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
    promote = train_llm.get_task("promote")
    assert {"score", "evaluate", "pull_stats"} <= promote.upstream_task_ids
    assert {"score", "evaluate"} <= train_llm.get_task("pull_stats").upstream_task_ids
    assert promote.trigger_rule == "none_failed"  # `score` and `evaluate` may be skipped


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


@pytest.mark.parametrize("cleared", ["tokenize", "score", "evaluate"])
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
dags = {{dag.dag_id: str(dag.schedule) for dag in train_llm.DAGS}}
print(json.dumps({{"heavy": heavy, "seconds": seconds, "dags": dags}}))
"""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW_CONN", "AWS_", "NIGHTJAR"))
    }
    env = {**clean, **environ}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_parsing_needs_no_connection_and_imports_nothing_heavy(pipelines):
    (pipelines / "wrong.toml").unlink()
    found = parse()
    assert found["heavy"] == []
    assert found["seconds"] < 10  # of CPU time; 0.3 on a quiet machine
    assert found["dags"] == {"train_llm": "None"}
    for number in range(20):
        (pipelines / f"poems-{number}.toml").write_text('corpus = "s3://texts/poems"\ntrain.batch_size = 4\n')
    many = parse(NIGHTJAR_PIPELINES=str(pipelines))
    assert (many["heavy"], len(many["dags"])) == ([], 22)
    assert many["seconds"] < found["seconds"] + 21 * 0.5  # of CPU time; 0.03 for each on a quiet machine


def test_environment_sets_the_schedule():
    dags = parse(NIGHTJAR_SCHEDULE="0 2 * * *", NIGHTJAR_LAKE="s3://lakes/x")["dags"]
    assert "CronTriggerTimetable" in dags["train_llm"]


@pytest.fixture
def pipelines(tmp_path):
    """Return a folder with the file of a pipeline, and a wrong one."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "poems.toml").write_text(
        'corpus = "s3://texts/poems"\npreset = "tiny"\ntrain.batch_size = 4\n[pipeline]\nschedule = "0 2 * * *"\n'
        'timezone = "Europe/Berlin"\nassets = ["new poems"]\ntags = ["poetry"]\nmax_active_runs = 4\n'
    )
    (folder / "wrong.toml").write_text("train.batchsize = 4\n")
    return folder


@pytest.fixture
def bag(pipelines, monkeypatch):
    """Return the DAGs with these files, as Airflow's DAG processor takes them."""
    monkeypatch.setenv("NIGHTJAR_PIPELINES", str(pipelines))
    return DagBag(PROJECT_ROOT / "dags")


def test_each_file_of_a_pipeline_makes_a_dag(bag, train_llm):
    poems = bag.dags["poems"]
    assert set(poems.task_ids) == set(train_llm.task_ids)
    assert (poems.max_active_runs, set(poems.tags)) == (4, {"nightjar", "poetry"})
    assert (poems.catchup, poems.is_paused_upon_creation) == (False, False)
    assert {kind.value for kind in poems.allowed_run_types} == {
        "scheduled",
        "manual",
        "operator_triggered",
        "asset_triggered",
    }
    shown = {name: poems.params[name] for name in ("corpus", "preset", "train.batch_size")}
    assert shown == {"corpus": "s3://texts/poems", "preset": "tiny", "train.batch_size": 4}
    again = decode_timetable(encode_timetable(poems.timetable))
    assert again.asset_condition is not None
    assert again.timetable.serialize()["timezone"] == "Europe/Berlin"


def test_a_wrong_file_is_an_import_error_of_one_line_that_hides_no_dag(bag, pipelines):
    """Airflow hides all DAGs of a file that has an import error, so this one belongs to a file that makes none."""
    assert {"train_llm", "poems", "wrong", "reap_clusters"} <= set(bag.dags)
    assert "wrong_pipelines.py" not in {Path(dag.fileloc).name for dag in bag.dags.values()}
    [(file, message)] = bag.import_errors.items()
    assert Path(file).name == "wrong_pipelines.py"
    assert (
        message == f"InputError: {pipelines}/wrong.toml: train.batchsize: unknown key; did you mean train.batch_size?"
    )


def test_a_wrong_file_keeps_its_dag_without_a_schedule(bag):
    """Its task terminate_cluster still runs, for a run that has a cluster while the file is edited."""
    assert bag.dags["wrong"].schedule is None
    assert bag.dags["wrong"].description.startswith("Wrong: ")


def test_scheduled_dags_are_not_paused(bag):
    assert {dag.is_paused_upon_creation for dag in bag.dags.values()} == {False}


def test_the_serialized_dag_stays_small(bag):
    for name in ("train_llm", "poems"):
        assert len(json.dumps(DagSerialization.to_dict(bag.dags[name]))) < 300_000
