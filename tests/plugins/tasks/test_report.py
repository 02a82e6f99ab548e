"""The report that pull_stats writes, whatever happened to the run."""

import json
import time

import pytest

from jobs.lake.layout import Lake
from jobs.lake.uri import join, local_path
from jobs.results.summary import Status, read_summary
from nightjar.aws import store
from nightjar.emr.records import ClusterRecords
from nightjar.tasks import results
from nightjar.tasks.report import write_report
from tests.support.results import configure, finish


@pytest.fixture
def run(lake_uri):
    return Lake(lake_uri).run("manual__2026-11-26T03:00", "default")


def page_of(run, stats_dir):
    results.pull_stats(run, stats_dir)
    copy = local_path(join((stats_dir).as_uri(), run.folder, "report.html")).read_text()
    assert copy == store().read_bytes(join(run.stats, "report.html")).decode()
    return copy


def test_a_run_that_never_got_a_cluster_says_why(run, tmp_path):
    store().write_bytes(run.config, json.dumps({"corpus": "file:///a", "preset": "tiny"}).encode())
    records = ClusterRecords(run, store())
    records.change(records.add(), refused="RunJobFlow: ValidationException: <subnet> is wrong")
    page = page_of(run, tmp_path / "stats")
    assert "no cluster: RunJobFlow: ValidationException: &lt;subnet&gt; is wrong" in page
    assert "tokenize" in page


def test_the_end_of_a_lost_cluster_is_the_cause(aws, tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("r", "default")
    records = ClusterRecords(run, store())
    records.change(records.add(), cluster_id="j-UNKNOWN")
    assert "cluster j-UNKNOWN is gone; it was lost: EMR has no such cluster" in page_of(run, tmp_path / "stats")


def test_a_task_that_failed_before_the_cluster_is_the_cause(run, tmp_path):
    results.pull_stats(run, tmp_path / "stats", {"sweep": None, "preflight": "/texts/a.png: it is an image, not text"})
    page = store().read_bytes(join(run.stats, "report.html")).decode()
    assert "preflight: /texts/a.png: it is an image, not text" in page
    assert read_summary(run, store()).cause == "preflight: /texts/a.png: it is an image, not text"


def test_a_task_that_was_lost_without_an_error_is_named(run, tmp_path):
    results.pull_stats(run, tmp_path / "stats", {"preflight": None})
    page = store().read_bytes(join(run.stats, "report.html")).decode()
    assert "the Airflow task preflight failed; its log has the cause" in page


def test_a_run_that_failed_outside_of_its_steps_is_failed_in_lists_until_it_goes_on(run, tmp_path):
    def seen():
        summary = read_summary(run, store())
        return summary.status, summary.cause

    assert seen() == (Status.UNFINISHED, None)
    for task in ("preflight", "upload_package"):
        results.pull_stats(run, tmp_path / "stats", {task: None})
        assert seen() == (Status.FAILED, f"the Airflow task {task} failed; its log has the cause")
    assert read_summary(run, store()).started == pytest.approx(time.time(), abs=60)


def test_a_later_success_leaves_no_failure_behind(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("r", "default")
    results.pull_stats(run, tmp_path / "stats", {"preflight": None})
    finish(run)
    assert (read_summary(run, store()).status, read_summary(run, store()).cause) == (Status.DONE, None)
    assert "failure" not in store().read_json(join(run.stats, "stats.json"))


def test_a_run_without_a_file_has_a_report(run, tmp_path):
    assert "The run has no configuration and no statistics" in page_of(run, tmp_path / "stats")


def test_a_report_that_cannot_be_written_is_logged_and_the_rest_is_copied(tmp_path, caplog):
    run = Lake((tmp_path / "lake").as_uri()).run("r", "default")
    store().write_json(join(run.stats, "stats.json"), {"valid_loss": 4.0})
    (local_path(run.stats) / "report.html").mkdir()
    assert results.pull_stats(run, tmp_path / "stats")["valid_loss"] == 4.0
    assert "the report could not be written" in caplog.text


def test_a_finished_run_asks_emr_nothing(tmp_path, monkeypatch):
    run = Lake((tmp_path / "lake").as_uri()).run("r", "default")
    configure(run)
    finish(run)
    monkeypatch.setattr("nightjar.tasks.report.cause_of_cluster", lambda *_: pytest.fail("asked"))
    write_report(run, store())
    assert "nats per token at the last step" in store().read_bytes(join(run.stats, "report.html")).decode()
