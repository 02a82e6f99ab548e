"""What survives when the server is stopped or killed and started again with the same state folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.emr import state
from tests.infra.emr.conftest import AWS, ROOT, Emr, bash, marked, served
from tests.infra.emr.test_faults import FLEETS
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.slow

DAY = 24 * 3600.0


@pytest.mark.long
def test_clusters_survive_the_server_and_its_processes_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "my state é"
    with served("--state-dir", str(folder)) as (server, emr):
        ended = emr.create(bash("echo done"), alive=False, Name="ended", Tags=[{"Key": "run", "Value": "r1"}])
        emr.wait("TERMINATED", ended)
        mark = "mark-of-a-killed-server"
        lost = emr.create(
            bash("true"), bash(f"sleep 300; true {mark}"), bash("true"), instances={"InstanceFleets": FLEETS}
        )
        until(lambda: emr.states(lost) == ["COMPLETED", "RUNNING", "PENDING"])
        emr.api.add_tags(ResourceId=lost, Tags=[{"Key": "late", "Value": "yes"}])
        before = emr.api.describe_cluster(ClusterId=ended)["Cluster"]
        steps = emr.steps(lost)
        refused = subprocess.run(
            [sys.executable, "-m", "infra.emr", "--port", "0", "--state-dir", str(folder)],
            cwd=ROOT,
            env=AWS,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert refused.returncode == 2
        assert "another embedded EMR uses it; choose another folder" in refused.stderr
        assert refused.stderr.count("\n") == 1
        server.kill()
        until(lambda: not marked(mark))

    (folder / "j-BROKEN").mkdir()
    (folder / "j-BROKEN" / "cluster.json").write_text('{"id": "j-BROKEN"}')
    (folder / "j-OTHER").mkdir()
    elsewhere = (folder / lost / "cluster.json").read_text("utf-8").replace(f'"id": "{lost}"', '"id": "../elsewhere"')
    (folder / "j-OTHER" / "cluster.json").write_text(elsewhere)
    with served("--state-dir", str(folder)) as (server, emr):
        assert {each["Id"] for each in emr.api.list_clusters()["Clusters"]} == {ended, lost}
        assert emr.api.describe_cluster(ClusterId=ended)["Cluster"] == before
        status = emr.status(lost)
        assert (status["State"], status["StateChangeReason"]["Code"]) == ("TERMINATED_WITH_ERRORS", "INSTANCE_FAILURE")
        assert emr.states(lost) == ["COMPLETED", "CANCELLED", "CANCELLED"]
        assert emr.steps(lost)[0] == steps[0]
        assert emr.api.describe_cluster(ClusterId=lost)["Cluster"]["Tags"] == [{"Key": "late", "Value": "yes"}]
        instances = emr.api.list_instances(ClusterId=lost)["Instances"]
        assert {each["Status"]["State"] for each in instances} == {"TERMINATED"}
        work = folder / lost / "steps" / steps[1]["Id"]
        assert not (work / "work").exists()
        assert (work / "controller").exists()
        running = emr.create(bash("sleep 300"))
        emr.wait("RUNNING", running, emr.steps(running)[0]["Id"])
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=PATIENCE_SECONDS)
        assert server.returncode == 0
        assert errors.count("cluster.json is not the state of a cluster, and is ignored") == 2
        assert not (tmp_path / "elsewhere").exists()
        assert "Traceback" not in errors

    with served("--state-dir", str(folder)) as (_, emr):
        assert emr.status(running)["State"] == "TERMINATED"
        assert emr.states(running) == ["CANCELLED"]
        assert len(emr.api.list_clusters()["Clusters"]) == 3


def test_clusters_are_forgotten_two_months_after_their_end(emr: Emr, server_state: Path) -> None:
    cluster = emr.create(alive=False)
    emr.wait("TERMINATED", cluster)
    saved = server_state / cluster / "cluster.json"
    ended = json.loads(saved.read_text("utf-8"))["ended"]
    kept = {record.id for record in state.load(server_state, ended + 59 * DAY)}
    assert cluster in kept
    assert saved.exists()
    assert cluster not in {record.id for record in state.load(server_state, ended + 61 * DAY)}
    assert not saved.parent.exists()
