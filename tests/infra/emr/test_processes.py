"""No process is left when a step, a cluster or the server ends."""

import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import psutil
import pytest

from infra.emr.server import StartError, embedded_emr
from infra.emr.settings import EmrSettings
from jobs.errors import InputError
from tests.infra.emr.conftest import AWS, ROOT, Emr, bash, command, marked, served
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.slow

PYTHON = shlex.quote(sys.executable)
# An orphan in a session of its own that ignores SIGTERM: a signal to the process group would not reach it.
ORPHAN = "import os, signal, sys, time; os.fork() and sys.exit(); os.setsid(); signal.signal(15, 1); time.sleep(300)"


def tree(mark: str) -> list[str]:
    """Return a command that starts two processes with `mark` in their command lines, one of them an orphan."""
    script = f"{PYTHON} -c '{ORPHAN}' {mark}; {PYTHON} -c 'import time; time.sleep(300)' {mark}; true"
    return ["bash", "-c", script]


@pytest.fixture
def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


def test_step_has_a_process_group_of_its_own(emr: Emr, mark: str) -> None:
    cluster = emr.create(bash(f"sleep 300; true {mark}"))
    process = until(lambda: [p for p in marked(mark) if p.info["name"] == "bash"])[0]
    assert psutil.Process().pid in {parent.pid for parent in process.parents()}
    groups = subprocess.check_output(["ps", "-o", "pgid=", "-p", f"{process.pid},{psutil.Process().pid}"], text=True)
    assert len(set(groups.split())) == 2
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    emr.wait("TERMINATED", cluster)


def test_cancelled_step_leaves_no_process_and_the_next_one_runs(emr: Emr, mark: str) -> None:
    cluster = emr.create(command(*tree(mark), on_failure="TERMINATE_CLUSTER"), bash("echo never"), bash("echo next"))
    until(lambda: len(marked(mark)) >= 4)
    running, pending, _ = (step["Id"] for step in emr.steps(cluster))
    infos = emr.api.cancel_steps(ClusterId=cluster, StepIds=[running, pending])["CancelStepsInfoList"]
    assert [info["Status"] for info in infos] == ["SUBMITTED", "SUBMITTED"]
    emr.wait("CANCELLED", cluster, running)
    assert not marked(mark)
    emr.wait("WAITING", cluster)
    assert emr.states(cluster) == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert emr.log(cluster, running, "controller")
    again = emr.api.cancel_steps(ClusterId=cluster, StepIds=[running])["CancelStepsInfoList"][0]
    assert again["Status"] == "FAILED"


def test_terminated_cluster_leaves_no_process_and_runs_no_more_steps(emr: Emr, mark: str) -> None:
    cluster = emr.create(command(*tree(mark)), bash("echo never"))
    until(lambda: len(marked(mark)) >= 4)
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    emr.wait("TERMINATED", cluster)
    assert not marked(mark)
    assert emr.states(cluster) == ["CANCELLED", "CANCELLED"]


def test_step_may_handle_sigterm(emr: Emr, tmp_path: Path) -> None:
    handles = tmp_path / "handles"
    script = f"trap 'echo saved; exit 0' TERM; echo ready; touch {handles}; while true; do sleep 0.1; done"
    cluster = emr.create(bash(script))
    step = emr.steps(cluster)[0]["Id"]
    until(handles.exists)
    emr.api.cancel_steps(ClusterId=cluster, StepIds=[step])
    emr.wait("CANCELLED", cluster, step)
    assert emr.log(cluster, step) == "ready\nsaved\n"


def test_processes_left_by_a_finished_step_are_ended(emr: Emr, mark: str) -> None:
    cluster = emr.create(bash(f"{PYTHON} -c '{ORPHAN}' {mark}; echo done"))
    emr.wait("WAITING", cluster)
    assert emr.states(cluster) == ["COMPLETED"]
    assert not marked(mark)


def test_server_refuses_web_pages_resets_and_stops_cleanly(mark: str) -> None:
    with served() as (server, emr):
        page = urllib.request.Request(
            emr.endpoint_url + "/", headers={"Origin": "https://example.org"}, data=b"Action=x"
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(page, timeout=PATIENCE_SECONDS)

        emr.create(command(*tree(mark)))
        until(lambda: len(marked(mark)) >= 4)
        reset = urllib.request.Request(emr.endpoint_url + "/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=PATIENCE_SECONDS)
        assert not marked(mark)
        assert emr.api.list_clusters()["Clusters"] == []

        emr.s3.create_bucket(Bucket="lake")
        emr.create(command(*tree(mark)))
        until(lambda: len(marked(mark)) >= 4)
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=PATIENCE_SECONDS)
        assert server.returncode == 0
        assert not marked(mark)
        assert "Traceback" not in errors


def test_killed_server_leaves_no_step_running(mark: str, tmp_path: Path) -> None:
    with served("--state-dir", str(tmp_path)) as (server, emr):
        emr.create(command(*tree(mark)))
        until(lambda: len(marked(mark)) >= 4)
        server.kill()
    until(lambda: not marked(mark))


def test_taken_port_is_one_clear_line(endpoint_url: str) -> None:
    port = endpoint_url.rpartition(":")[2]
    argv = [sys.executable, "-m", "infra.emr", "--port", port]
    refused = subprocess.run(
        argv, cwd=ROOT, env=AWS, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert f"port {port}: Address already in use" in refused.stderr


@pytest.mark.parametrize("name", ["", "ab", "Lake", "a_b", "lake-", "a/b"])
def test_a_bucket_that_cannot_be_leaves_nothing(name: str, tmp_path: Path) -> None:
    settings = EmrSettings(buckets=("lake", name), state_dir=tmp_path / "state")
    with pytest.raises(InputError, match="its name needs 3 to 63 lower-case letters"), embedded_emr(settings):
        pass
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("host", ["", "0.0.0.0", "localhost"])
def test_the_url_is_one_that_clients_on_this_machine_reach(host: str) -> None:
    with served("--host", host) as (_, emr):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", emr.api.meta.endpoint_url)
        assert emr.api.list_clusters()["Clusters"] == []


def test_process_has_at_most_one_server(endpoint_url: str) -> None:
    with pytest.raises(StartError, match="already"), embedded_emr():
        pass
