"""The DAG that makes an earlier champion the champion again, in a real Airflow."""

import pytest

from infra.airflow.environment import environment
from jobs.lake import store
from jobs.lake.champion import Change, change_champion, read_champion
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.uri import join
from tests.support.headless import run_dag

pytestmark = [pytest.mark.airflow, pytest.mark.long]


def test_a_person_goes_back_to_the_champion_before(tmp_path):
    lake = Lake((tmp_path / "my lake").as_uri())
    poems = lake.pipeline("poems")
    for name in "ab":
        folder = join(lake.models, name * 64)
        store.publish_manifest(folder, Manifest("model", name, (store.write_file(folder, "config.json", b"{}"),)))
        change = Change("promoted", name * 64, f"lab/poems/night-{name}", "2026-11-26", "airflow: scheduled", "better")
        assert change_champion(poems, *read_champion(poems), change)
    env = environment(tmp_path / "home", lake.uri, "http://127.0.0.1:1")

    def roll_back(run_id, **conf):
        log = tmp_path / f"{run_id}.log"
        return run_dag({"why": "it writes nonsense", **conf}, run_id, env, log, "rollback_champion"), log.read_text()

    assert roll_back("first", pipeline="poems")[0] == 0
    found, _ = read_champion(poems)
    change = found.history[-1]
    assert (found.model, len(found.history), change.action, change.why) == (
        "a" * 64,
        3,
        "rolled back",
        "it writes nonsense",
    )
    assert change.by.startswith("airflow: ")
    assert change.request == "rollback_champion first"
    code, log = roll_back("second")
    assert code == 2
    assert "pipelines/default/champion.json: no earlier champion to go back to" in log
