"""The outcome of a numbered attempt at a step: written however the step ends, which keeps its true exit code."""

import os
import signal
import socket
import subprocess
import sys
from datetime import datetime

import pytest

from jobs.cli.main import main
from jobs.config import STEPS, resolve
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.outcome import parse_outcome
from jobs.lake.uri import local_path
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
def run(tmp_path):
    (tmp_path / "text.txt").write_text("The man walks over old stone bridges while rain falls.\n\n" * 300)
    run = Lake((tmp_path / "lake").as_uri()).run("r")
    config = resolve((tmp_path / "text.txt").as_uri(), "tiny", {"windows.size": 16, "tokenize.vocab_size": 300})
    store.write_bytes(run.config, config.to_json().encode())
    return run


def outcome(run, step, attempt=1):
    uri = run.outcome(step, attempt)
    return parse_outcome(store.read_bytes(uri), uri)


def attempt(run, step, number=1, *arguments):
    return main([step, "--config", run.config, "--attempt", str(number), "--engine", "inline", *arguments])


def test_a_step_that_is_done_leaves_its_outcome(run):
    assert attempt(run, "tokenize", 3) == 0
    left = outcome(run, "tokenize", 3)
    assert (left.step, left.attempt, left.exit_code) == ("tokenize", 3, 0)
    assert (left.exception, left.message, left.place) == (None, None, None)
    assert left.host == socket.gethostname()
    assert datetime.fromisoformat(left.started) < datetime.fromisoformat(left.ended)
    assert store.list_folders(run.step_attempts("tokenize")) == ["3"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        (("--bogus",), "NoSuchOption", "no such option: --bogus"),
        (("--engine", "quantum"), "BadParameter", "'quantum' is not one of"),
    ],
)
def test_a_wrong_command_line_is_an_outcome(run, step, arguments, exception, message):
    assert attempt(run, step, 1, *arguments) == 2
    left = outcome(run, step)
    assert (left.exit_code, left.exception) == (2, exception)
    assert message in left.message


def test_a_refusal_is_an_outcome_with_its_place(run, capsys):
    store.write_bytes(run.config, store.read_bytes(run.config).replace(b'"seed": 0', b'"seed": "no"'))
    assert attempt(run, "train") == 2
    left = outcome(run, "train")
    assert (left.exit_code, left.exception) == (2, "InputError")
    assert capsys.readouterr().err.splitlines()[-1] == f"nightjar: {left.message}"
    assert left.place.startswith("jobs/config/__init__.py:")


def test_a_damaged_lake_is_an_outcome(run):
    store.write_bytes(run.datasets, b"{")
    assert attempt(run, "windows") == 1
    left = outcome(run, "windows")
    assert (left.exit_code, left.exception) == (1, "DamagedError")
    assert left.message.startswith(f"{run.datasets}: not valid JSON")


def test_a_missing_module_is_an_outcome_and_keeps_its_traceback(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "jobs.pipeline", None)
    with pytest.raises(ModuleNotFoundError):
        attempt(run, "train")
    left = outcome(run, "train")
    assert (left.exit_code, left.exception) == (1, "ModuleNotFoundError")
    assert "jobs.pipeline" in left.message
    assert left.place.startswith("jobs/cli/run.py:")


def test_the_exit_code_stays_if_the_outcome_cannot_be_written(run, caplog):
    local_path(run.uri).joinpath("steps").write_text("a file, not a folder")
    assert attempt(run, "train", 1, "--bogus") == 2
    assert "outcome.json: the outcome could not be written (" in caplog.text


def test_statistics_that_cannot_be_written_do_not_fail_a_step(run, caplog):
    local_path(run.stats).write_text("a file, not a folder")
    assert attempt(run, "tokenize") == 0
    assert outcome(run, "tokenize").exit_code == 0
    assert "tokenize: its statistics are incomplete (NotADirectoryError" in caplog.text
    store.write_bytes(run.datasets, b"{")
    assert attempt(run, "windows") == 1
    assert outcome(run, "windows").exception == "DamagedError"  # and not the statistics' error


@pytest.mark.parametrize("number", ["0", "-1", "one", "1.5", ""])
def test_a_wrong_number_leaves_nothing(run, number, capsys):
    assert main(["train", "--config", run.config, "--attempt", number]) == 2
    assert "--attempt" in capsys.readouterr().err
    assert store.list_folders(run.uri) == []


@pytest.mark.parametrize(
    "arguments", [("train", "--run-id", "r"), ("embed", "--run", "r"), ("train", "--config", "x.json")]
)
def test_an_attempt_needs_a_run(arguments, tmp_path, capsys):
    assert main([*arguments, "--attempt", "1"]) == 2
    assert (
        "not a run's configuration"
        if "x.json" in arguments
        else "--attempt: works only with --config; give --config URI"
    ) in capsys.readouterr().err


def test_sigterm_is_an_outcome(run):
    """The corpus lies behind a server that never answers, so that the step waits."""
    config = resolve("s3://bucket/text.txt", "tiny")
    store.write_bytes(run.config, config.to_json().encode())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        command = ["tokenize", "--config", run.config, "--attempt", "1", "--engine", "inline"]
        with subprocess.Popen(
            [sys.executable, "-m", "jobs", *command], stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                lines = process.communicate(timeout=PATIENCE_SECONDS)[1].splitlines()
    assert process.returncode == 1, lines
    left = outcome(run, "tokenize")
    assert (left.exit_code, left.exception) == (1, "StoppedError")
    assert left.message == "stopped by SIGTERM; finished work is kept; run the same command again to continue"
    assert left.place.startswith("jobs/lake/_s3.py:")
    assert lines[-1] == f"nightjar: {left.message}"
