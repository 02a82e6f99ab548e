"""The entry point and the health check of the containers: secrets, environment, commands."""

import http.server
import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.compose import container


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    for name in ("HOME", "LAKE", "WORK"):
        monkeypatch.setattr(container, name, tmp_path / name.lower())
        (tmp_path / name.lower()).mkdir()
    monkeypatch.setattr(container, "DATABASE_PASSWORD", tmp_path / "password")
    monkeypatch.setattr(container, "SAMPLES", tmp_path / "samples")
    return tmp_path


def test_secrets_are_created_once(volumes):
    assert container.prepare() == 0
    kept = container.airflow_environment()
    password = (volumes / "password").read_text()
    assert container.prepare() == 0
    assert container.airflow_environment() == kept
    assert (volumes / "password").read_text() == password
    assert f":{password}@postgres/" in kept["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert stat.S_IMODE((volumes / "home" / "container.json").stat().st_mode) == 0o600


def test_airflow_finds_the_other_services_by_name(volumes):
    container.prepare()
    env = container.airflow_environment()
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://api-server:8080/execution/"
    assert json.loads(env["AIRFLOW_CONN_AWS_DEFAULT"])["extra"]["endpoint_url"] == "http://emr:5555"
    assert {"api-server", "emr", "127.0.0.1"} <= set(env["NO_PROXY"].split(","))
    assert env["NIGHTJAR_LAKE"] == (volumes / "lake").as_uri()
    assert len(env["AIRFLOW__CORE__FERNET_KEY"]) == 44


def test_a_lake_that_is_not_writable_is_one_line_with_the_command(volumes, monkeypatch, capsys):
    monkeypatch.setattr(container.os, "access", lambda *_: False)
    assert container.prepare() == 2
    error = capsys.readouterr().err
    assert "you may not write there" in error
    assert "sudo chown -R" in error
    assert "NIGHTJAR_LAKE_DIR" in error


def test_the_lake_gets_the_sample_corpus_of_the_image(volumes):
    (volumes / "samples" / "shakespeare").mkdir(parents=True)
    (volumes / "samples" / "shakespeare" / "lear.txt").write_text("Nothing will come of nothing.")
    assert container.prepare() == 0
    assert (volumes / "lake" / "corpora" / "shakespeare" / "lear.txt").is_file()


def test_the_embedded_emr_keeps_its_clusters_and_listens_on_its_own_name(volumes):
    left = volumes / "work" / "emr" / "j-1" / "cluster.json"
    left.parent.mkdir(parents=True)
    left.touch()
    command = container.emr_command()
    assert command[command.index("--host") + 1] == "emr"
    assert command[command.index("--state-dir") + 1] == str(volumes / "work" / "emr")
    assert left.exists()


def test_an_unknown_command_prints_the_usage(capsys):
    assert container.main(["shell"]) == 2
    assert "password" in capsys.readouterr().err


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in ("/there", "/api/v2/monitor/health") else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"scheduler": {"status": "healthy"}, "triggerer": {"status": None}}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("what", "code"), [("/there", 0), ("/missing", 1), ("scheduler", 0), ("triggerer", 1), ("dag_processor", 1)]
)
def test_the_exit_code_says_whether_a_service_is_healthy(address, what, code):
    assert healthy(address, what) == code


def test_a_host_that_does_not_answer_is_not_healthy():
    assert healthy("127.0.0.1:1", "/there") == 1


def healthy(address, what):
    script = Path("infra/compose/healthcheck.py")
    return subprocess.run(
        [sys.executable, "-I", "-S", script, address, what], check=False, capture_output=True
    ).returncode
