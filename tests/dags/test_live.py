"""`train_llm` in a real Airflow with scheduler, triggerer and API, and a user who intervenes through the API.

The lake is in a folder with a space in its name. spark-submit runs a stand-in for the job.
"""

import http.client
import json
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.airflow.standalone import LocalAirflow, call, local_airflow, login
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import local_path
from tests.support.airflow import STANDIN, Emr
from tests.support.browser import CHROMIUM, browser

ENDED = ("success", "failed")

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class User:
    """A logged-in user of Airflow's API."""

    airflow: LocalAirflow
    token: str
    lake: Lake
    corpus: str

    def ask(self, path, body=None, method=None):
        return call(f"{self.airflow.url}/api/v2/dags/train_llm/{path}", body, self.token, method)

    def trigger(self, **conf) -> Run:
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        chosen = {"corpus": self.corpus, "preset": "tiny"} | {
            key.replace("__", "."): value for key, value in conf.items()
        }
        self.ask("dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": chosen})
        return self.lake.run(run_id, DEFAULT)

    def wait(self, run, limit_seconds=600):
        """Wait for the end of the run and return its final state."""
        deadline = time.monotonic() + limit_seconds
        while (state := self.ask(f"dagRuns/{run.run_id}")["state"]) not in ENDED:
            assert time.monotonic() < deadline, self.states(run)
            time.sleep(0.5)
        return state

    def states(self, run):
        found = self.ask(f"dagRuns/{run.run_id}/taskInstances")["task_instances"]
        return {each["task_id"]: each["state"] for each in found}

    def page(self, url, headers=None):
        """Return status, headers and body of a page, which is requested exactly as it is named."""
        connection = http.client.HTTPConnection(self.airflow.url.removeprefix("http://"), timeout=60)
        connection.request("GET", url, headers={"Cookie": f"_token={self.token}"} if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    def log(self, run, task):
        """Return the log of a task's last attempt, as shown in the UI."""
        path = f"dagRuns/{run.run_id}/taskInstances/{task}"
        return json.dumps(self.ask(f"{path}/logs/{self.ask(path)['try_number']}"), ensure_ascii=False)


@pytest.fixture(scope="module")
def user(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("live")
    lake = Lake((folder / "my lake").as_uri())
    env = {
        "NIGHTJAR_PACKAGE_ROOT": str(STANDIN),
        "NIGHTJAR_STATS_DIR": str(folder / "stats"),
        "NIGHTJAR_POLL_SECONDS": "0.3",
    }
    with local_airflow(folder / "airflow home", lake.uri, extra_env=env) as running:
        yield User(running, login(running.url, running.password), lake, corpus)


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
    assert states.pop("embed") == "skipped"
    assert set(states.values()) == {"success"}
    assert emr.clusters(run.run_id) == ["TERMINATED"]
    assert "train: half of it done" in user.log(run, "train")
    assert "train is complete and verified" in user.log(run, "train")
    assert "valid_loss" in user.log(run, "pull_stats")
    assert "Promoted: 2.2500 bits per byte" in user.log(run, "promote")
    events = call(f"{user.airflow.url}/api/v2/assets/events", token=user.token)["asset_events"]
    assert events[0]["extra"]["valid_loss"] == 4.0
    assert Path(events[0]["extra"]["stats_dir"], "stats.json").is_file()


LINKS = {
    "create_cluster": {"Cluster"},
    "embed": {"Cluster"},
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
        assert set(live) == {"Run folder", *LINKS.get(task, ())}
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
        assert tab.evaluate("[...document.querySelectorAll('a')].some((each) => each.innerText.includes('Training'))")


def test_run_marked_failed_during_a_step_terminates_its_cluster(user, emr, progress):
    run = user.trigger(spark__app_name="hang:tokenize")
    progress(run, "tokenize")
    user.ask(f"dagRuns/{run.run_id}", {"state": "failed"}, "PATCH")
    assert user.wait(run) == "failed"
    assert emr.clusters(run.run_id) == ["TERMINATED"]
    assert emr.steps(run.run_id) == [("tokenize", "CANCELLED")]
    states = user.states(run)
    assert (states["tokenize"], states["terminate_cluster"], states["verdict"]) == ("failed", "success", "failed")
    assert "tokenize is failed; windows is skipped" in user.log(run, "verdict")


def test_task_cleared_during_a_step_runs_again_on_one_new_cluster(user, emr, progress):
    run = user.trigger(spark__app_name="hang:tokenize")
    progress(run, "tokenize")
    clear = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": ["tokenize"], "only_failed": False}
    user.ask("clearTaskInstances", {**clear, "include_downstream": True, "reset_dag_runs": True})
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
    clear = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [task], "only_failed": False}
    user.ask("clearTaskInstances", {**clear, "include_downstream": True, "reset_dag_runs": True})
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
