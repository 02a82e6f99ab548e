"""`train_llm` in a real Airflow with scheduler, triggerer and API, and a user who intervenes through the API.

The lake is in a folder with a space in its name. Steps run a stand-in for the job.
"""

import re
from pathlib import Path

import pytest

from infra.airflow.standalone import call, login
from jobs.lake.uri import local_path
from jobs.results.summary import read_summary
from tests.support.airflow import Emr
from tests.support.browser import CHROMIUM, browser

pytestmark = [pytest.mark.airflow, pytest.mark.long]


@pytest.fixture(scope="module")
def user(live):
    return live


@pytest.fixture(scope="module")
def emr(user):
    return Emr(user.airflow.emr_endpoint)


@pytest.fixture(scope="module")
def run(user):
    """A run that has succeeded."""
    run = user.trigger()
    assert user.wait(run) == "success"
    return run


def test_run_shows_progress_and_results(user, emr, run):
    states = user.states(run)
    assert {states.pop(step) for step in ("embed", "score", "evaluate")} == {"skipped"}
    assert set(states.values()) == {"success"}
    assert emr.clusters(run.run_id) == ["TERMINATED"]
    assert "train: half of it done" in user.log(run, "train")
    assert "train is complete and verified" in user.log(run, "train")
    assert "valid_loss" in user.log(run, "pull_stats")
    assert "Promoted: 2.2500 bits per byte" in user.log(run, "promote")
    events = call(f"{user.airflow.url}/api/v2/assets/events", token=user.token)["asset_events"]
    extras = {each["name"]: each["extra"] for each in events}
    assert extras["nightjar-stats"]["valid_loss"] == extras["nightjar-promotion"]["numbers"]["valid_loss"] == 4.0
    assert Path(extras["nightjar-stats"]["stats_dir"], "stats.json").is_file()


LINKS = {
    "create_cluster": {"Cluster"},
    "embed": {"Cluster"},
    "score": {"Cluster"},
    "evaluate": {"Cluster"},
    "tokenize": {"Cluster", "Step logs"},
    "windows": {"Cluster", "Step logs"},
    "train": {"Cluster", "Step logs", "Model"},
    "generate": {"Cluster", "Step logs", "Generated text"},
    "pull_stats": {"Report"},
    "promote": {"Model"},
}


def test_every_link_of_a_task_leads_somewhere(user, run):
    pages = {}
    for task in user.states(run):
        found = user.ask(f"dagRuns/{run.run_id}/taskInstances/{task}/links")["extra_links"]
        live = {name: url for name, url in found.items() if url}
        assert (task, set(live)) == (task, {"Run folder", *LINKS.get(task, ())})
        pages |= {(task, name): user.page(url) for name, url in live.items()}
    assert {status for status, _, _ in pages.values()} == {200}
    assert 'href="/nightjar/lake/runs' in pages["preflight", "Run folder"][2]
    assert "config.json" in pages["preflight", "Run folder"][2]
    assert "stdout.gz" in pages["tokenize", "Step logs"][2]
    assert user.page(follow(pages["train", "Step logs"][2], "stdout.gz"))[2] == "train is done\n"
    assert "steps/" in pages["create_cluster", "Cluster"][2]
    assert pages["pull_stats", "Report"][1]["content-type"] == "text/html; charset=utf-8"
    assert pages["generate", "Generated text"][2] == "The man sings.\n"


def follow(page, text):
    """Return where a link of a page leads."""
    return re.search(rf'href="([^"]*)">{re.escape(text)}', page)[1]


def test_pages_show_runs_and_logs_alone_and_never_as_web_pages(user, run, tmp_path):
    """Names that lead out of the lake, by dots, by links or by other folders, are not found."""
    folder = local_path(run.uri)
    (folder / "page.html").write_text("<script>alert(1)</script>")
    (folder / "<b>.txt").write_text("<b>")
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "secret.txt").write_text("nobody may read this")
    here = f"/nightjar/lake/runs/{run.folder}"
    status, headers, _ = user.page(f"{here}/page.html")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert "<b>" not in user.page(f"{here}/")[2]
    assert user.page(f"{here}/%3Cb%3E.txt")[2] == "<b>"
    outside = [f"{here}/out/secret.txt", f"{here}/out/", "/nightjar/lake/datasets/", "/nightjar/lake/"]
    outside += [f"/nightjar/lake/runs/{up}/{up}/datasets/" for up in ("..", "%2e%2e", "..%2f..")]
    outside += ["/nightjar/lake/runs//etc/passwd", "/nightjar/lake/runs/a%00b", f"{here}/none.txt", "/nightjar/docs"]
    for url in outside:
        status, _, body = user.page(url)
        assert (url, status) == (url, 404)
        assert "nobody may read this" not in body
    assert "No files yet" in user.page("/nightjar/lake/runs/later/")[2]
    assert user.page(here)[1]["location"] == f"{here}/"


def test_pages_need_a_login(user, run):
    url = f"/nightjar/lake/runs/{run.folder}/"
    assert user.page(url, {})[0] == 401
    browser = {"Accept": "text/html"}
    assert user.page(url, browser)[0] == 307
    assert user.page(url, browser)[1]["location"].startswith("/auth/login?next=")
    assert user.page(url, {"Cookie": "_token=guess"})[0] in (401, 403)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_dag_run_has_a_tab_with_its_training(user, run, tmp_path):
    with browser(tmp_path / "profile") as tab:
        tab.log_in(user.airflow.url, user.token)
        tab.open(f"{user.airflow.url}/dags/train_llm/runs/{run.run_id}/plugin/nightjar-run")
        frame = "document.querySelector('iframe').contentDocument"
        tab.wait(f"{frame}.querySelector('h1').innerText === '{run.run_id}'")
        assert "preset tiny" in tab.evaluate(f"{frame}.body.innerText")


def test_a_run_that_preflight_refuses_says_why(user):
    run = user.trigger(corpus="/no/such/text.txt")
    assert user.wait(run) == "failed"
    assert read_summary(run).cause.startswith("preflight: file:///no/such/text.txt: no file there")


def test_run_marked_failed_during_a_step_terminates_its_cluster(user, emr, progress):
    run = user.trigger(spark__app_name="hang:tokenize")
    progress(run, "tokenize")
    user.mark(run, "failed")
    assert user.wait(run) == "failed"
    assert emr.clusters(run.run_id) == ["TERMINATED"]
    assert emr.steps(run.run_id) == [("tokenize", "CANCELLED")]
    states = user.states(run)
    assert (states["tokenize"], states["terminate_cluster"], states["verdict"]) == ("failed", "success", "failed")
    assert "tokenize is failed; windows is skipped" in user.log(run, "verdict")


def test_task_cleared_during_a_step_runs_again_on_one_new_cluster(user, emr, progress):
    run = user.trigger(spark__app_name="hang:tokenize")
    progress(run, "tokenize")
    user.clear(run, "tokenize")
    assert user.wait(run) == "success"
    assert emr.clusters(run.run_id) == ["TERMINATED", "TERMINATED"]
    assert sorted(emr.steps(run.run_id)) == [
        ("generate", "COMPLETED"),
        ("tokenize", "CANCELLED"),
        ("tokenize", "COMPLETED"),
        ("train", "COMPLETED"),
        ("windows", "COMPLETED"),
    ]


@pytest.mark.parametrize("task", ["promote", "preflight"])
def test_clearing_a_finished_run_or_its_promotion_starts_no_cluster(user, emr, run, task):
    user.clear(run, task)
    assert user.wait(run) == "success"
    assert emr.clusters(run.run_id) == ["TERMINATED"]
    if task == "preflight":
        assert "all steps of this run have finished before" in user.log(run, "create_cluster")
        assert "train has finished before" in user.log(run, "train")


def test_no_cluster_is_left_running(user, emr):
    assert {each["Status"]["State"] for each in emr.client.list_clusters()["Clusters"]} == {"TERMINATED"}


def test_api_refuses_unauthenticated_and_invalid_requests(user):
    with pytest.raises(OSError, match="401"):
        call(f"{user.airflow.url}/api/v2/dags")
    with pytest.raises(OSError, match="401"):
        login(user.airflow.url, "guess")
    with pytest.raises(OSError, match="400"):
        user.trigger(windows__size=0)
