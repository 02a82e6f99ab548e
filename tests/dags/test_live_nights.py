"""A pipeline with a file of its own in a real Airflow: its DAG, a night that waits for its turn, and notifications."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from infra.airflow.standalone import call
from jobs.cli.main import main
from jobs.lake.layout import Pipeline
from nightjar import turns
from nightjar.aws import store
from tests.support.waiting import until

pytestmark = [pytest.mark.airflow, pytest.mark.long]


@pytest.fixture
def user(live):
    return replace(live, dag_id="poems")


def night(user, **conf):
    """Trigger a run that takes what the file of the pipeline says."""
    run_id = f"night-{time.time_ns()}"
    user.start(run_id, conf)
    return user.lake.run(run_id, "poems")


def facts(user, dag_id):
    return call(f"{user.airflow.url}/api/v2/dags/{dag_id}", token=user.token)


def test_a_wrong_file_is_one_line_and_hides_no_dag(user):
    errors = until(lambda: call(f"{user.airflow.url}/api/v2/importErrors", token=user.token)["import_errors"])
    [error] = errors
    assert error["filename"].endswith("wrong_pipelines.py")
    assert error["stack_trace"].endswith("broken.toml: train.batchsize: unknown key; did you mean train.batch_size?")
    assert "\n" not in error["stack_trace"]
    for dag_id in ("poems", "train_llm", "broken"):
        dag = facts(user, dag_id)
        assert (dag["is_stale"], dag["is_paused"], dag["has_import_errors"]) == (False, False, False), dag


def test_a_new_pipeline_has_no_run_and_waits_for_its_next_night(user):
    start = datetime.fromisoformat(facts(user, "poems")["next_dagrun_run_after"])
    year = datetime.now(UTC).year + 1
    assert start.astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=None) == datetime(year, 1, 1, 3, 30)
    assert user.ask("dagRuns?run_type=scheduled")["total_entries"] == 0


def test_a_night_waits_in_the_triggerer_for_its_turn_and_is_sent_when_it_is_promoted(user, chat):
    other = user.lake.run("n-1", "poems", "elsewhere")
    turns.take(other, "poems", timedelta(days=1), store(), lambda turn: False)
    run = night(user)
    until(lambda: user.states(run)["take_turn"] == "deferred")
    turns.end(other, store())
    assert user.wait(run) == "success", user.states(run)
    log = user.log(run, "take_turn")
    assert "Waiting for run n-1 of the DAG poems, whose turn began at" in log
    assert "the turn is free" in log
    assert store().read_json(run.config)["train"]["batch_size"] == 4
    turn, _ = turns.read_turn(Pipeline.of(run), store())
    assert (turn.run_id, turn.ended is None) == (run.run_id, False)
    [text] = [each["text"] for each in chat.received if each["text"].startswith(f"{run.run_id}: ")]
    assert text.endswith(", the first champion")


def test_of_two_nights_at_once_the_second_waits_for_the_first_and_failures_are_sent(user, chat):
    fails = {"spark.app_name": "fail:tokenize"}
    first = night(user, **fails)
    until(lambda: user.states(first).get("take_turn") == "success")
    second = night(user, **fails)
    assert user.wait(first) == user.wait(second) == "failed"
    assert f"Waiting for run {first.run_id} of the DAG poems" in user.log(second, "take_turn")
    assert user.states(second)["take_turn"] == "success"
    for run in (first, second):
        until(lambda run=run: {"text": f"{run.run_id} of poems failed"} in chat.received)


def test_a_sweep_is_a_run_for_each_combination_and_promotes_nothing(user, monkeypatch, capsys, caplog):
    monkeypatch.setenv("NIGHTJAR_AIRFLOW_USER", "admin")
    monkeypatch.setenv("NIGHTJAR_AIRFLOW_PASSWORD", user.airflow.password)
    words = ["sweep", "--vary", "train.seed=1,2", "--airflow", user.airflow.url, "--name", "seeds"]
    champion = user.lake.pipeline("poems").champion
    before = store().info(champion)
    assert main([*words, "--dag", "poems"]) == 0
    assert main([*words, "--dag", "poems"]) == 0
    assert "seeds-02: exists already train.seed=2" in caplog.text
    for number in (1, 2):
        run = user.lake.run(f"seeds-0{number}", "poems")
        assert user.wait(run) == "success", user.states(run)
        config = store().read_json(run.config)
        assert (config["train"]["seed"], config["train"]["batch_size"]) == (number, 4)
        assert not config["promotion"]["enabled"]
    assert store().info(champion) == before
    for name, value, message in (
        ("NIGHTJAR_AIRFLOW_PASSWORD", user.airflow.password, "nowhere: Airflow refused the request (404"),
        ("NIGHTJAR_AIRFLOW_PASSWORD", "x", "auth/token: Airflow refused the request (401"),
    ):
        monkeypatch.setenv(name, value)
        assert main([*words, "--dag", "nowhere"]) == 2
        assert message in capsys.readouterr().err
