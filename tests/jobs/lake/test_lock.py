"""The lock of a run: one holder at a time, renewed while it works, taken over when it is left."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.lock import Lock, RunInUseError, locked, read_lock, this_machine
from tests.support.waiting import PATIENCE_SECONDS, until


@pytest.fixture(params=["file", "s3"])
def run(request, tmp_path):
    lake = Lake(tmp_path.as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))
    return lake.run("r")


def leave(run, **changes):
    """Leave a lock as a process of another machine does that is killed."""
    lock = replace(Lock("cluster j-1", "somebody", "node-9", 1, time.time() + 60), **changes)
    store.write_json(run.lock, asdict(lock))


def test_only_one_holds_the_lock(run):
    with (
        locked(run),
        pytest.raises(
            RunInUseError, match=r"in use by process .* wait until that process has ended, or choose"
        ) as caught,
        locked(run),
    ):
        pass
    assert caught.value.exit_code == 2
    with locked(run):  # the first one has released it
        assert read_lock(run)[0].expires > time.time()
    assert read_lock(run)[0].expires == 0


@pytest.mark.parametrize("is_left", [False, True])
def test_of_many_at_once_one_gets_it(run, is_left):
    if is_left:
        leave(run, expires=0.0)
    refused = []

    def enter(number):
        try:
            with locked(run):
                until(lambda: len(refused) == 7)
                return "held"
        except RunInUseError:
            refused.append(number)

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(enter, range(8)))
    assert ends.count("held") == 1
    assert len(refused) == 7


def test_a_lock_of_a_process_that_is_gone_is_taken_over_at_once(run):
    gone = subprocess.Popen(["true"])
    gone.wait()
    leave(run, machine=this_machine(), pid=gone.pid)
    started = time.monotonic()
    with locked(run):
        assert time.monotonic() - started < 30


def test_a_lock_of_the_same_owner_is_taken_over_at_once(run):
    leave(run)
    with locked(run, "cluster j-1") as lock:
        assert read_lock(run)[0].holder == lock.holder != "somebody"


def test_a_lock_that_nobody_renews_expires(run):
    expires = time.time() + 1.5
    leave(run, expires=expires)
    with locked(run, "cluster j-2"):
        assert time.time() >= expires


def test_a_lock_that_another_machine_renews_is_refused(run, monkeypatch):
    monkeypatch.setattr("jobs.lake.lock._POLL_SECONDS", 0.1)
    leave(run)
    threading.Timer(0.5, leave, [run], {"expires": time.time() + 99}).start()
    with pytest.raises(RunInUseError, match=r"in use by cluster j-1 \(node-9, process 1\)"), locked(run, "cluster j-2"):
        pass


def test_a_held_lock_is_renewed(run):
    with locked(run, seconds=0.6):
        first = read_lock(run)[0].expires
        until(lambda: read_lock(run)[0].expires > first)


def test_a_holder_whose_lock_was_taken_over_is_told(run):
    told = threading.Event()
    with locked(run, "cluster j-1", lost=lambda line: told.set() or lines.append(line), seconds=0.6):
        lines = []
        with locked(run, "cluster j-1") as second:
            assert told.wait(PATIENCE_SECONDS)
    assert lines == [f"{run.uri}: its lock was taken over by cluster j-1"]
    assert read_lock(run)[0].holder == second.holder  # the first one has not released it


@pytest.mark.parametrize("content", [b"", b"[]", b'{"owner": "x"}', b'{"owner": 1, "expires": "never"}'])
def test_damage_is_named(run, content):
    store.write_bytes(run.lock, content)
    with pytest.raises(DamagedError, match=r"lock\.json: not what Nightjar writes"), locked(run):
        pass


@pytest.mark.slow
def test_two_runs_at_once_and_a_crash(tmp_path):
    """`jobs run` twice: the second is refused while the first works, and goes on at once when it was killed."""
    (tmp_path / "text.txt").write_text("the man walks over old stone bridges\n\n" * 2000)
    command = [sys.executable, "-m", "jobs", "run", "--corpus", tmp_path / "text.txt", "--lake", tmp_path / "l"]
    command += ["--run-id", "r", "--preset", "tiny", "--set", "train.epochs=10000", "--set", "train.max_seconds=200"]
    lock = Lake((tmp_path / "l").as_uri()).run("r").lock
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        until(lambda: store.exists(lock))
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        first.kill()
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith("nightjar: ")
    assert f"process {first.pid}" in second.stderr.splitlines()[-1]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as third:
        lines = []
        for line in third.stderr:
            lines.append(line)
            if ": started" in line:
                third.send_signal(signal.SIGTERM)
    assert third.returncode == 1, lines
    assert "SIGTERM" in lines[-1]
    assert store.read_json(lock)["expires"] == 0  # it was released
