"""What the pages answer if the lake is empty, slow or away. The rights are those of `test_security.py`."""

import threading

import pytest
from fastapi.testclient import TestClient

from infra.airflow.processes import wait_until
from jobs.cli.ports import free_port
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.results.catalog import Catalog
from nightjar import aws
from nightjar.web.access import READ_LOGS, READ_RUNS
from nightjar.web.app import app
from nightjar.web.reading import LakeReader, reader
from tests.support import airflow
from tests.support.waiting import PATIENCE_SECONDS

PAGE = {"Accept": "text/html"}


@pytest.fixture
def client(monkeypatch):
    """A client of the pages, for whom every right is granted."""
    for right in (READ_RUNS, READ_LOGS):
        monkeypatch.setitem(app.dependency_overrides, right.dependency, lambda: None)
    return TestClient(app, raise_server_exceptions=False)


def be_read(monkeypatch, source):
    """Let the pages show what a reader reads."""
    monkeypatch.setitem(app.dependency_overrides, reader, lambda: source)


def test_an_empty_lake_says_how_to_start(client, lake_uri, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_LAKE", lake_uri)
    answer = client.get("/runs", headers=PAGE)
    assert answer.status_code == 200
    assert "No runs yet." in answer.text


def test_a_large_lake_is_read_while_the_page_says_so(client, tmp_path, monkeypatch):
    original = Catalog.page

    go_on = threading.Event()

    def slow(catalog, query):
        assert go_on.wait(PATIENCE_SECONDS)
        return original(catalog, query)

    monkeypatch.setattr(Catalog, "page", slow)
    be_read(monkeypatch, LakeReader(Lake(tmp_path.as_uri()), tmp_path / "runs.json", patience_seconds=0.1))
    answer = client.get("/runs", headers=PAGE)
    assert (answer.status_code, answer.headers["refresh"]) == (200, "2")
    assert "read for the first time" in answer.text
    go_on.set()
    wait_until(
        lambda: "No runs yet." in client.get("/runs", headers=PAGE).text, "the lake is not read", [], PATIENCE_SECONDS
    )


def test_a_lake_that_does_not_answer_is_an_error_with_its_cause(client, tmp_path, monkeypatch):
    airflow.connect(monkeypatch, f"http://127.0.0.1:{free_port(0)}")
    lake = Lake("s3://lakes/away")
    be_read(monkeypatch, LakeReader(lake, tmp_path / "runs.json", patience_seconds=60, retry_seconds=0))
    for path in ("/runs", "/runs/show/lab/default/r", "/runs/compare?run=lab/a/b&run=lab/a/c", "/lake/runs/a/"):
        answer = client.get(path, headers=PAGE)
        assert answer.status_code == 502
        assert "The lake cannot be read" in answer.text
        assert "Traceback" not in answer.text


def test_a_setting_that_is_wrong_is_named(client, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_LAKE", "ftp://x/y")
    answer = client.get("/runs", headers=PAGE)
    assert answer.status_code == 502
    assert "NIGHTJAR_LAKE" in answer.text


def test_damaged_files_leave_a_list_and_a_page(client, lake_uri, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_LAKE", lake_uri)
    folder = join(lake_uri, "runs", "lab", "default", "damaged")
    for name in ("config.json", "stats/stats.json", "stats/metrics.csv", "lock.json", "clusters/0001.json"):
        aws.store().write_bytes(join(folder, name), b"\xff{")
    assert "damaged" in client.get("/runs").text
    answer = client.get("/runs/show/lab/default/damaged")
    assert answer.status_code == 200
    assert answer.text.count("Not shown") == 3
