"""`train_llm` from end to end without Airflow's servers. spark-submit runs a stand-in for the job."""

import json

import pytest

from jobs.lake.layout import Lake
from jobs.lake.uri import join, relative_name
from nightjar.aws import store
from tests.support.airflow import BUCKET

pytestmark = pytest.mark.airflow


def names(uri):
    return {relative_name(file.uri, uri) for file in store().list_files(uri)}


def test_run_on_s3_succeeds(headless, emr, aws):
    lake = Lake(f"s3://{BUCKET}/good")
    done = headless(lake.uri, {})
    assert done.code == 0, done.log[-3000:]
    assert emr.clusters(done.run.run_id) == ["TERMINATED"]
    assert emr.steps(done.run.run_id) == [(step, "COMPLETED") for step in ("tokenize", "windows", "train", "generate")]
    assert {"config.json", "datasets.json", "train/_manifest.json", "generate/_manifest.json"} <= names(done.run.uri)
    assert "train: half of it done" in done.log
    assert "Promoted: 2.2500 bits per byte, the first champion" in done.log
    assert store().read_json(lake.champion)["run_id"] == done.run.run_id
    assert json.loads((done.stats_dir / done.run.run_id / "stats.json").read_text())["valid_loss"] == 4.0
    [package] = {name.split("/")[0] for name in names(join(lake.uri, "packages"))}
    assert {"jobs.zip", "launcher.py", "_manifest.json"} <= names(lake.package(package))


def test_failing_step_fails_the_run_and_terminates_the_cluster(headless, emr, tmp_path):
    done = headless((tmp_path / "my lake").as_uri(), {"spark.app_name": "fail:tokenize"})
    assert done.code == 1
    assert emr.clusters(done.run.run_id) == ["TERMINATED"]
    assert emr.steps(done.run.run_id) == [("tokenize", "FAILED"), ("tokenize", "FAILED")]
    assert "a line before the error" in done.log
    assert "tokenize failed" in done.log.splitlines()[-2]
    assert "RuntimeError: the disk of worker 7 failed" in done.log.splitlines()[-2]
    assert done.log.splitlines()[-1].startswith("verdict: tokenize is failed; windows is upstream_failed")
    assert (done.stats_dir / done.run.run_id).exists() is False


def test_user_error_is_one_line_and_creates_no_cluster(headless, emr, tmp_path):
    done = headless((tmp_path / "lake").as_uri(), {"corpus": "/no/such/text.txt"})
    assert done.code == 2
    assert any(line.startswith("preflight: file:///no/such/text.txt: no file there") for line in done.log.splitlines())
    assert emr.clusters(done.run.run_id) == []
