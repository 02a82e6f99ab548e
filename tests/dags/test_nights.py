"""Nights of `train_llm` without Airflow's servers: turns, experiments, notifications and events of assets."""

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from jobs.lake.layout import Lake, Pipeline
from nightjar import turns
from nightjar.aws import store
from tests.support.receiver import receiver

pytestmark = [pytest.mark.airflow, pytest.mark.long]
WAITS = "Waiting for run n-1 of the DAG train_llm, whose turn began at"

NOTIFY = """
[[pipeline.notify]]
on = ["promotion", "rejection"]
notifier = "airflow.providers.http.notifications.http.HttpNotifier"
http_conn_id = "chat"
json = { text = "{{ dag_run.run_id }}: {{ decision.promoted }}, {{ decision.why }}" }
"""

BUDGET = """
[[pipeline.notify]]
on = ["budget"]
notifier = "airflow.providers.http.notifications.http.HttpNotifier"
http_conn_id = "chat"
json = { text = "{{ dag_run.run_id }}: {{ budget }}" }
"""


@pytest.fixture
def events(home):
    """Return the extras of the events of an asset that a run has updated."""

    def found(asset, run):
        query = (
            "select asset_event.extra from asset_event join asset on asset.id = asset_id"
            " where asset.name = ? and source_run_id = ?"
        )
        with sqlite3.connect(home / "airflow.db") as connection:
            return [json.loads(extra) for (extra,) in connection.execute(query, (asset, run.run_id))]

    return found


def test_promotion_and_rejection_are_sent_and_assets_follow_them(headless, events, tmp_path):
    lake = (tmp_path / "lake").as_uri()
    (tmp_path / "default.toml").write_text(NOTIFY)
    with receiver() as chat:
        sent = {
            "NIGHTJAR_PIPELINES": str(tmp_path),
            "AIRFLOW_CONN_CHAT": f"http://127.0.0.1:{chat.port}",
        }
        first, second = headless(lake, {}, **sent), headless(lake, {}, **sent)
        third = headless(lake, {"spark.app_name": "fail:tokenize"}, **sent)
    ends = [each.log.splitlines()[-2:] for each in (first, second, third)]
    assert [each.code for each in (first, second, third)] == [0, 0, 1], ends
    names = [each.run.run_id for each in (first, second, third)]
    texts = [each["text"] for each in chat.received]
    assert texts[0].startswith(f"{names[0]}: True, ")
    assert texts[0].endswith(", the first champion")
    assert texts[1].startswith(f"{names[1]}: False, it cannot be compared with the champion: windows.split=auto")
    assert len(texts) == 2  # that of a failed run is tested in a real Airflow, whose DAG processor sends it
    [stats] = events("nightjar-stats", first.run)
    assert (stats["pipeline"], stats["valid_loss"]) == ("default", 4.0)
    assert len(events("nightjar-stats", second.run)) == 1
    assert events("nightjar-stats", third.run) == []
    [promoted] = events("nightjar-promotion", first.run)
    assert (promoted["pipeline"], promoted["run"]) == ("default", first.run.folder)
    assert promoted["numbers"]["valid_loss"] == 4.0
    assert len(promoted["model"]) == 64
    assert events("nightjar-promotion", second.run) == events("nightjar-promotion", third.run) == []


def test_a_run_that_its_budget_refuses_is_sent(headless, tmp_path):
    (tmp_path / "default.toml").write_text(BUDGET)
    with receiver() as chat:
        sent = {"NIGHTJAR_PIPELINES": str(tmp_path), "AIRFLOW_CONN_CHAT": f"http://127.0.0.1:{chat.port}"}
        refused = headless((tmp_path / "lake").as_uri(), {"budget.usd": 5}, **sent)
    assert refused.code == 2
    [text] = [each["text"] for each in chat.received]
    assert text.startswith(f"{refused.run.run_id}: budget.usd=5: the budget cannot be checked: ")


def take(lake, run_id, project):
    """Give a run that no Airflow works on the turn."""
    other = Lake(lake).run(run_id, "default", project)
    assert turns.take(other, "train_llm", timedelta(days=1), store(), lambda turn: False) is None
    return other


def test_a_night_waits_for_its_turn_and_ends_it(headless, tmp_path):
    lake, log = (tmp_path / "lake").as_uri(), tmp_path / "dag.log"
    other, started = take(lake, "n-1", "elsewhere"), datetime.now(UTC)
    with ThreadPoolExecutor(1) as pool:
        night = pool.submit(headless, lake, {})
        while not night.done() and not (log.exists() and WAITS in log.read_text()):
            time.sleep(0.2)
        turns.end(other, store())
        done = night.result()
    assert done.code == 0, done.log
    assert WAITS in done.log
    turn, _ = turns.read_turn(Pipeline.of(done.run), store())
    assert (turn.run_id, turn.since > started) == (done.run.run_id, True)
    assert turn.ended is not None


def test_the_turn_of_a_run_that_airflow_does_not_know_is_taken_over_and_a_failed_run_ends_its_turn(headless, tmp_path):
    lake = (tmp_path / "lake").as_uri()
    take(lake, "n-1", "lab")
    done = headless(lake, {"spark.app_name": "fail:tokenize"})
    assert done.code == 1
    assert "Waiting for" not in done.log
    assert "Taking over the turn of run n-1 of the DAG train_llm" in done.log
    turn, _ = turns.read_turn(Pipeline.of(done.run), store())
    assert (turn.run_id, turn.ended is not None) == (done.run.run_id, True)


def test_an_experiment_waits_for_nobody_and_promotes_nothing(headless, tmp_path):
    lake = (tmp_path / "lake").as_uri()
    other = take(lake, "n-1", "elsewhere")
    done = headless(lake, {"promotion.enabled": False})
    assert done.code == 0, done.log
    assert not store().exists(Pipeline.of(done.run).champion)
    turn, _ = turns.read_turn(Pipeline.of(done.run), store())
    assert (turn.run, turn.ended) == (other.folder, None)


def test_a_night_of_the_same_starts_no_cluster_and_is_green(headless, events, emr, corpus, tmp_path):
    lake = (tmp_path / "lake").as_uri()
    (tmp_path / "default.toml").write_text('[pipeline]\nskip_unchanged = "all"\n')
    variables = {"NIGHTJAR_PIPELINES": str(tmp_path)}
    first = headless(lake, {}, **variables)
    assert first.code == 0, first.log
    before = len(emr.client.list_clusters()["Clusters"])
    same, other = headless(lake, {}, **variables), headless(lake, {"train.seed": 7}, **variables)
    assert (same.code, other.code) == (0, 0), same.log
    assert f"Nothing has changed since run {first.run.folder}: no cluster is started" in same.log
    assert store().list_files(same.run.uri) == []
    assert len(emr.client.list_clusters()["Clusters"]) == before + 1  # of the run with another setting
    assert events("nightjar-stats", same.run) == []
    assert len(events("nightjar-stats", other.run)) == 1
