"""What happens to a run by docker-compose when its parts are stopped or killed in mid-step: `make test-compose`."""

import json

import pytest

from jobs.lake.uri import local_path
from tests.compose.stack import running_stack, wait_until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

LONG = {
    "train__epochs": 10_000,
    "train__max_tokens": 100_000_000,
    "train__max_seconds": 40,
    "train__checkpoint_every": 20,
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("compose")) as running:
        yield running


def test_a_run_survives_a_restart_of_airflow_in_mid_step(stack):
    run = stack.trigger(**LONG)
    stack.until_step(run, "train")
    assert [name for name in stack.live_clusters() if name.endswith(run.run_id)]
    stack.compose("restart", "scheduler", "triggerer")
    assert stack.wait(run) == "success", stack.states(run)
    assert stack.compose("logs", "--no-color", "emr").count("RUNNING: train ") == 1
    assert stack.live_clusters() == []


def test_a_run_whose_cluster_is_killed_goes_on_by_itself_on_a_new_one(stack):
    run = stack.trigger(**LONG)
    stack.until_step(run, "train")
    checkpoints = local_path(run.checkpoints)
    wait_until(lambda: checkpoints.is_dir() and any(checkpoints.iterdir()), "a checkpoint", 60)
    before = stack.containers()["emr"]["RestartCount"]
    stack.compose("exec", "-T", "emr", "python", "-c", KILL_THE_SERVER)
    assert stack.wait(run) == "success", stack.states(run)
    assert stack.containers()["emr"]["RestartCount"] == before + 1
    assert stack.live_clusters() == []
    resumed = min((checkpoints.parent / "metrics").glob("part-0001-*"))
    assert json.loads(resumed.read_text("utf-8").splitlines()[0])["step"] > 1


KILL_THE_SERVER = """
import os, pathlib, signal
from jobs.lake.uri import local_path
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    words = (folder / "cmdline").read_bytes().split(b"\\0")
    if b"infra.emr" in words:
        os.kill(int(folder.name), signal.SIGKILL)
        break
"""
