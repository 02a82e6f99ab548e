"""`train_llm` from end to end without Airflow's servers. Steps run a stand-in for the job."""

import json

import pytest

from infra.airflow.environment import environment
from infra.emr.control import Control
from infra.lake import sample_corpus
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.results.summary import read_summary
from nightjar.aws import store
from tests.support.airflow import STANDIN
from tests.support.headless import run_dag

pytestmark = pytest.mark.airflow


@pytest.mark.long
def test_a_run_with_nothing_filled_in_trains_on_the_sample_corpus(emr, home, tmp_path):
    """As `make airflow` leaves it: the lake has the sample corpus, and the form its defaults."""
    lake, log = Lake((tmp_path / "lake").as_uri()), tmp_path / "dag.log"
    texts = tmp_path / "lake" / "corpora" / sample_corpus.NAME
    texts.mkdir(parents=True)
    for name in ("lear", "othello"):
        (texts / f"{name}.txt").write_text("Nothing will come of nothing.\n\n" * 400)
    environ = {**environment(home, lake.uri, emr.endpoint), "NIGHTJAR_PACKAGE_ROOT": str(STANDIN)}
    environ |= {"NIGHTJAR_STATS_DIR": str(tmp_path / "stats"), "NIGHTJAR_POLL_SECONDS": "0.3"}
    assert run_dag({}, "nothing", environ, log) == 0, log.read_text()[-3000:]
    run = lake.run("nothing", DEFAULT)
    config = store().read_json(run.config)
    assert (config["corpus"], config["preset"]) == (texts.as_uri(), "demo")
    assert set(config["chosen"]) == {"spark.executors", "spark.executor_cores"}  # `make airflow` sets them
    assert {step for step, _ in emr.steps("nothing")} >= {"tokenize", "windows", "train", "generate"}
    assert emr.clusters("nothing") == ["TERMINATED"]
    assert f'nightjar sample --lake "{tmp_path / "lake"}" --model {run.folder} --prompt' in log.read_text()


@pytest.mark.long
def test_failing_step_fails_the_run_and_terminates_the_cluster(headless, emr, tmp_path):
    done = headless((tmp_path / "my lake").as_uri(), {"spark.app_name": "fail:tokenize"})
    assert done.code == 1
    assert emr.clusters(done.run.run_id) == ["TERMINATED"]
    assert emr.steps(done.run.run_id) == [("tokenize", "FAILED"), ("tokenize", "FAILED")]
    assert "a line before the error" in done.log
    assert "tokenize failed" in done.log.splitlines()[-2]
    assert "RuntimeError: the disk of worker 7 failed" in done.log.splitlines()[-2]
    assert done.log.splitlines()[-1].startswith("verdict: tokenize is failed; windows is upstream_failed")
    assert {path.name for path in (done.stats_dir / done.run.folder).iterdir()} == {"report.html", "stats.json"}
    for stats in (json.loads((done.stats_dir / done.run.folder / "stats.json").read_text()), written(done.run)):
        assert stats["bill"]["is_final"]
        assert stats["instance_seconds"] > stats["bill"]["steps"]["tokenize"]["instance_seconds"] > 0
        assert (stats["cost_usd"], stats["bill"]["is_embedded"], stats["bill"]["problem"]) == (0.0, True, None)
    assert store().read_json(done.run.estimate)["reason"] == "no earlier night"
    report = done.stats_dir / done.run.folder / "report.html"
    assert "RuntimeError: the disk of worker 7 failed" in report.read_text()
    summary = read_summary(done.run, store())
    assert summary.status == "failed"
    assert summary.cause.startswith("tokenize failed")
    assert "RuntimeError: the disk of worker 7 failed" in summary.cause


def written(run):
    return store().read_json(join(run.stats, "stats.json"))


@pytest.mark.long
def test_run_whose_cluster_could_not_be_ended_fails_and_names_it(headless, emr, tmp_path):
    """All steps succeed. A role without the right to end clusters must not leave one behind unseen."""
    control = Control(emr.endpoint)
    fault = control.fault("denied", operation="TerminateJobFlows", count=None)
    done = headless((tmp_path / "lake").as_uri(), {})
    control.clear(fault)
    assert done.code == 1
    [cluster] = [each for each in emr.client.list_clusters()["Clusters"] if each["Name"].endswith(done.run.run_id)]
    assert cluster["Status"]["State"] == "WAITING"
    assert done.log.splitlines()[-1].startswith(
        f"verdict: terminate_cluster is failed; cluster {cluster['Id']} may still run (TerminateJobFlows: AccessDenied"
    )
    assert (done.stats_dir / done.run.folder / "stats.json").is_file()
    emr.client.terminate_job_flows(JobFlowIds=[cluster["Id"]])


def test_user_error_is_one_line_and_creates_no_cluster(headless, emr, tmp_path):
    done = headless((tmp_path / "lake").as_uri(), {"corpus": "/no/such/text.txt"})
    assert done.code == 2
    assert any(line.startswith("preflight: file:///no/such/text.txt: no file there") for line in done.log.splitlines())
    assert emr.clusters(done.run.run_id) == []
    assert {path.name for path in (done.stats_dir / done.run.folder).iterdir()} == {"report.html", "stats.json"}
    report = done.stats_dir / done.run.folder / "report.html"
    assert "preflight: file:///no/such/text.txt: no file there" in report.read_text()
    summary = read_summary(done.run, store())
    assert summary.status == "failed"
    assert summary.cause.startswith("preflight: file:///no/such/text.txt: no file there")
