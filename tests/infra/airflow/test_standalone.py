"""The parts of a local Airflow, without starting it. `tests/dags/test_live.py` starts one."""

import os
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine

from infra.airflow import standalone
from infra.airflow.environment import PROJECT_ROOT, admin_password, environment
from infra.airflow.processes import GuardedProcess, ProcessError, wait_until
from infra.lake import sample_corpus
from jobs.cli.ports import free_port
from jobs.errors import InputError


def test_environment_is_isolated_from_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere")
    env = environment(tmp_path / "home", "file:///lake", "http://127.0.0.1:5555", 8080)
    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL"} & set(env)
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["NIGHTJAR_LAKE"] == "file:///lake"
    assert "http://127.0.0.1:5555" in env["AIRFLOW_CONN_AWS_DEFAULT"]
    with create_engine(env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    assert env["PATH"] == os.environ["PATH"]


def test_password_and_secrets_are_created_once_and_private(tmp_path):
    first = environment(tmp_path, "file:///lake", "http://127.0.0.1:1")
    password = admin_password(tmp_path)
    assert first == environment(tmp_path, "file:///lake", "http://127.0.0.1:1")
    assert admin_password(tmp_path) == password
    assert len(first["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64
    for name in ("passwords.json", "secrets.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert (
        environment(tmp_path / "other", "file:///lake", "http://127.0.0.1:1")["AIRFLOW__API__SECRET_KEY"]
        != (first["AIRFLOW__API__SECRET_KEY"])
    )


@pytest.mark.parametrize("flag", ["--port", "--emr-port"])
def test_taken_port_is_one_clear_line(tmp_path, capfd, flag):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-m", "infra.airflow.standalone", "--home", str(tmp_path), "--port", "0"]
        done = subprocess.run(
            [*command, flag, str(port)], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False
        )
    assert done.returncode == 2
    assert f"port {port} cannot be used" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_lake_with_an_unknown_scheme_is_one_clear_line(tmp_path, capsys, caplog):
    assert standalone.main(["--home", str(tmp_path), "--lake", "gs://x/y"]) == 2
    assert "unknown scheme 'gs'" in caplog.text


def test_free_port_is_free():
    port = free_port(0)
    assert port < 32_768, "Linux gives this port to outgoing connections"
    assert free_port(port) == port
    with socket.create_server(("127.0.0.1", port)), pytest.raises(InputError, match=str(port)):
        free_port(port)


def test_error_of_an_ended_process_has_the_end_of_its_log(tmp_path):
    command = [sys.executable, "-c", "print('an error'); raise SystemExit(3)"]
    with GuardedProcess("process", command, os.environ, tmp_path / "process.log") as process:
        with pytest.raises(ProcessError, match=r"(?s)process ended with exit status 3.*the last lines of .*an error"):
            wait_until(lambda: False, "it is not there", [process], 60)
        with pytest.raises(ProcessError, match="process failed"):
            process.wait_for_success(60)


def test_waiting_has_a_timeout(tmp_path):
    with GuardedProcess("process", ["sleep", "60"], os.environ, tmp_path / "process.log") as process:
        with pytest.raises(ProcessError, match="it is not there after"):
            wait_until(lambda: False, "it is not there", [process], 0.5)
        with pytest.raises(ProcessError, match="took longer"):
            process.wait_for_success(0.1)


def test_end_of_the_block_ends_the_process_and_its_children(tmp_path):
    mark = f"sleep 61.{os.getpid()}"
    with GuardedProcess(
        "process", ["bash", "-c", f"setsid {mark} & {mark}; true"], os.environ, tmp_path / "process.log"
    ):
        wait_until(lambda: len(running(mark)) >= 2, "the children have not started", [], 60)
    assert running(mark) == []


def running(command):
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if line == command]


def test_default_port_is_replaced_if_it_is_in_use_and_a_chosen_one_is_kept(monkeypatch):
    monkeypatch.delenv("NIGHTJAR_PORT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(standalone, "DEFAULT_PORT", server.getsockname()[1])
        assert standalone._default_port() == 0
        monkeypatch.setenv("NIGHTJAR_PORT", str(server.getsockname()[1]))
        assert standalone._default_port() == server.getsockname()[1]
    for wrong in ("eighty", "70000"):
        monkeypatch.setenv("NIGHTJAR_PORT", wrong)
        with pytest.raises(InputError, match=wrong):
            free_port(standalone._default_port())


def test_local_lake_gets_folders_and_the_sample_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_corpus, "shakespeare", lambda _: downloaded(tmp_path))
    with standalone._ready_lake((tmp_path / "my lake").as_uri()) as env:
        assert env == {}
    assert (tmp_path / "my lake" / "corpora" / "shakespeare" / "lear.txt").is_file()


def test_lake_in_the_embedded_s3_uses_the_downloaded_corpus_unless_the_user_names_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_corpus, "shakespeare", lambda _: downloaded(tmp_path))
    monkeypatch.delenv("NIGHTJAR_CORPUS", raising=False)
    with standalone._ready_lake("s3://lakes/x") as env:
        assert env == {"NIGHTJAR_CORPUS": str(tmp_path / "downloaded")}
    monkeypatch.setenv("NIGHTJAR_CORPUS", "s3://lakes/text")
    with standalone._ready_lake("s3://lakes/x") as env:
        assert env == {}


def test_airflow_starts_without_the_sample_corpus_if_it_cannot_be_downloaded(tmp_path, monkeypatch, caplog):
    def unreachable(_):
        raise InputError("cannot download the sample corpus")

    monkeypatch.setattr(sample_corpus, "shakespeare", unreachable)
    with standalone._ready_lake(tmp_path.as_uri()) as env:
        assert env == {}
    assert "cannot download the sample corpus" in caplog.text


def test_what_to_do_next_is_said_when_airflow_is_ready(tmp_path, monkeypatch, caplog):
    @contextmanager
    def running(*_):
        yield standalone.LocalAirflow("http://127.0.0.1:1", "secret", "http://127.0.0.1:2", ())
        raise AssertionError("a signal ends the wait")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_corpus, "shakespeare", lambda _: downloaded(tmp_path))
    monkeypatch.setattr(standalone, "local_airflow", running)
    monkeypatch.setattr(standalone.threading.Event, "wait", interrupt)
    caplog.set_level("INFO")
    for lake, own, stop, stopped in (
        (tmp_path / "my lake", tmp_path / "my lake" / "corpora", "stop Airflow", standalone.STOPPED),
        (
            *("s3://b/l", "s3://b/l/corpora/...", "stop Airflow (the lake is in memory, and is lost)"),
            standalone.STOPPED_IN_MEMORY,
        ),
    ):
        caplog.clear()
        assert standalone.main(["--home", str(tmp_path / "home"), "--lake", str(lake), "--port", "0"]) == 0
        lines = [line.strip() for line in caplog.text.partition("\nNext\n")[2].splitlines()]
        assert lines[:2] == [
            "train a model: open the address, log in, and press Trigger; the form is filled in",
            "http://127.0.0.1:1/dags/train_llm",
        ]
        assert lines[3:6] == [str(own), stop, "Ctrl-C"]
        assert caplog.messages[-1] == stopped


def downloaded(folder):
    """Return a folder with a text, as the download leaves it."""
    (folder / "downloaded").mkdir(exist_ok=True)
    (folder / "downloaded" / "lear.txt").write_text("Nothing will come of nothing.")
    return folder / "downloaded"
