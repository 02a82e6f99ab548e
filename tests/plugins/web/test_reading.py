"""What the pages read, from a disk and S3: each thing once for all users, with a time limit for the first reading."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import HTTPException

from infra.airflow.processes import wait_until
from jobs.errors import LakeError
from jobs.lake import store as environment
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.results.catalog import Catalog, Query
from nightjar import aws
from nightjar.web import reading
from nightjar.web.reading import LakeReader
from tests.support.results import finish, write_rows
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
def lake(lake_uri):
    """A lake with a run: on this machine, and in the embedded S3."""
    lake = Lake(lake_uri)
    run = lake.run("r 1", "default")
    files = aws.store()
    files.write_bytes(run.config, b'{"preset": "tiny", "corpus": "file:///text"}')
    files.write_bytes(join(run.stats, "stats.json"), b'{"valid_loss": 4.0}')
    return lake


def test_runs_are_listed_and_found(lake, tmp_path):
    reader = LakeReader(lake, tmp_path / "runs.json", patience_seconds=60)
    page = reader.page(Query())
    assert [(each.run_id, each.preset, each.valid_loss) for each in page.runs] == [("r 1", "tiny", 4.0)]
    assert reader.report(reader.run("lab/default/r=201"))[0].settings["preset"] == "tiny"
    for name in (
        "lab",
        "lab/default",
        "lab/default/none",
        "lab/default/r=201/stats",
        "",
        ".",
        "lab//r",
        "lab/default/..",
    ):
        with pytest.raises(HTTPException) as refused:
            reader.run(name)
        assert refused.value.status_code == 404


def test_the_first_reading_of_a_large_lake_is_not_waited_for(tmp_path, monkeypatch):
    lake = Lake((tmp_path / "lake").as_uri())
    finish(lake.run("r", "default"))
    go_on, readings = threading.Event(), []
    original = Catalog.page

    def slow(catalog, query):
        readings.append(query)
        assert go_on.wait(PATIENCE_SECONDS)
        return original(catalog, query)

    monkeypatch.setattr(Catalog, "page", slow)
    reader = LakeReader(lake, tmp_path / "runs.json", patience_seconds=0.05)
    started = time.monotonic()
    assert [reader.page(Query()) for _ in range(3)] == [None] * 3
    assert time.monotonic() - started < 50
    assert len(readings) == 1
    go_on.set()
    wait_until(lambda: reader.page(Query()) is not None, "the lake is not read", [], PATIENCE_SECONDS)
    assert reader.page(Query()).total == 1


def test_a_first_reading_that_failed_is_made_again(tmp_path, monkeypatch):
    lake = Lake((tmp_path / "lake").as_uri())
    finish(lake.run("r", "default"))
    reader = LakeReader(lake, tmp_path / "runs.json", patience_seconds=60)

    def fail(catalog, query):
        raise LakeError("s3://lake: does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Catalog, "page", fail)
        with pytest.raises(LakeError, match="does not answer"):
            reader.page(Query())
    assert reader.page(Query()).total == 1


def test_many_users_of_a_live_run_read_it_once(tmp_path, monkeypatch):
    lake = Lake((tmp_path / "lake").as_uri())
    run = lake.run("r", "default")
    environment.write_bytes(run.config, b"{}")
    write_rows(run, 60, 30)
    reads = []
    original = reading.read_report

    def counted(*arguments, **named):
        reads.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(reading, "read_report", counted)
    monkeypatch.setattr(reading, "FRESH_SECONDS", 60.0)
    reader = LakeReader(lake, tmp_path / "runs.json")
    with ThreadPoolExecutor(8) as users:
        found = list(users.map(lambda _: len(reader.report(run)[0].rows), range(16)))
    assert found == [2] * 16
    assert len(reads) == 1


def test_few_reports_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_REPORTS", 3)
    lake = Lake((tmp_path / "lake").as_uri())
    reader = LakeReader(lake, tmp_path / "runs.json")
    for number in range(6):
        reader.report(lake.run(f"r{number}", "default"))
    assert list(reader._reports) == [f"lab/default/r{number}" for number in (3, 4, 5)]
