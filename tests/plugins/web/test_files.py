"""The names in the lake that the pages of runs show. `tests/dags/test_live.py` requests the pages from Airflow."""

import pytest
from fastapi import HTTPException
from starlette.requests import Request

from jobs.lake.uri import join
from nightjar import aws
from nightjar.web import files
from nightjar.web.reading import reader


@pytest.fixture
def lake(lake_uri, monkeypatch):
    """A lake with a run: on this machine, and in the embedded S3."""
    monkeypatch.setenv("NIGHTJAR_LAKE", lake_uri)
    aws.store().write_bytes(join(lake_uri, "runs", "r 1", "stats", "stats & more.txt"), b"valid_loss 4.0")
    aws.store().write_bytes(join(lake_uri, "datasets", "secret.txt"), b"secret")
    return lake_uri


def shown(name):
    """Return the response for a name."""
    scope = {"type": "http", "headers": [], "root_path": "/airflow/nightjar", "path": f"/lake/{name}"}
    return files.show(name, Request(scope), reader())


def test_folders_and_files_of_runs_are_shown(lake):
    assert 'href="/airflow/nightjar/lake/runs/r%201/">r 1/' in shown("runs/").body.decode()
    page = shown("runs/r 1/stats/").body.decode()
    assert 'href="/airflow/nightjar/lake/runs/r%201/stats/stats%20%26%20more.txt">stats &amp; more.txt' in page
    assert "14 bytes" in page
    assert 'href="/airflow/nightjar/lake/runs/r%201/">../' in page
    uri = files.place("runs/r 1/stats/stats & more.txt", reader().lake)
    assert list(files._blocks(reader().store, uri, unzip=False)) == [b"valid_loss 4.0"]
    assert "No files yet" in shown("logs/j-1/").body.decode()
    assert shown("runs/r 1").headers["location"] == "/airflow/nightjar/lake/runs/r%201/"


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "datasets/", "datasets/secret.txt", "runs/../datasets/secret.txt", "runs/../../etc/passwd"),
        *("runs/./r 1/", "runs//r 1/", "/runs/r 1/", "runs/r 1/\0", "../runs/", "runs/..", "runs/r 1/none.txt"),
    ],
)
def test_other_names_are_not_found(lake, name):
    with pytest.raises(HTTPException) as refused:
        shown(name)
    assert refused.value.status_code == 404
