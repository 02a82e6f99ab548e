"""The box that tries a model: the text of ``nightjar sample``, in parts, within limits, for who may read the runs."""

import http.client
import json
import sys
from contextlib import ExitStack
from urllib.parse import quote, urlsplit

import psutil
import pytest
from fastapi.testclient import TestClient

from jobs.cli.main import main
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import local_path
from jobs.model_io.folder import save_model
from nightjar import aws
from nightjar.web import sampling
from nightjar.web.access import READ_RUNS
from nightjar.web.app import app
from tests.support.models import untrained_model
from tests.support.results import configure, finish
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.airflow

ASKED = {"prompt": "the copyright", "temperature": 0, "top_k": 50}


@pytest.fixture(scope="module")
def run(site):
    """A run with a model that does not end by itself."""
    run = site.lake.run("with model", "default")
    finish(run)
    save_model(run.model, *untrained_model(is_endless=True))
    return run


def ask(site, folder, token, body=None, **headers):
    """Send a question, and return the open answer."""
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=PATIENCE_SECONDS)
    headers = {"Content-Type": "application/json", "Cookie": f"_token={token}", **headers}
    text = body if isinstance(body, str) else json.dumps(ASKED if body is None else body)
    connection.request("POST", f"/nightjar/runs/try/{quote(folder)}", text, headers)
    return connection.getresponse()


def events(text):
    """Return the values of a stream of events, without its comments."""
    return [json.loads(each.removeprefix("data: ")) for each in text.split("\n\n") if each.startswith("data: ")]


def sampled(capsysbinary, run, prompt):
    words = ("--prompt", prompt, "--temperature", "0", "--max-new-tokens", str(sampling.NEW_TOKENS))
    capsysbinary.readouterr()
    assert main(["sample", "--model", run.model, *words]) == 0
    return capsysbinary.readouterr().out.decode()[len(prompt) :].removesuffix("\n")


@pytest.mark.parametrize("prompt", ["the copyright", "", "-x", "Käfer 你好\nund"])
def test_the_text_is_that_of_the_command_line_and_comes_in_parts(site, viewer, run, prompt, capsysbinary):
    answer = ask(site, run.folder, viewer, {**ASKED, "prompt": prompt})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    lines = events(answer.read().decode())
    assert "".join(line["text"] for line in lines) == sampled(capsysbinary, run, prompt)
    assert len(lines) > 1


def test_who_may_not_read_the_runs_may_not_ask(site, run):
    assert ask(site, run.folder, "").status == 401
    assert ask(site, run.folder, site.token("nobody")).status == 403
    assert site.ask(f"/nightjar/runs/try/{quote(run.folder)}", site.token("admin")).status == 405


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"prompt": "a" * 4001}, {}, 422),
        ({"prompt": "a", "temperature": 3}, {}, 422),
        ({"prompt": "a", "top_k": 0}, {}, 422),
        ({"prompt": "a", "max_new_tokens": 10**9}, {}, 422),
        ('{"prompt": "a", "temperature": NaN}', {}, 422),
        ("{", {}, 422),
        (None, {"Sec-Fetch-Site": "cross-site"}, 403),
        (None, {"Content-Type": "text/plain"}, 422),
    ],
)
def test_a_wrong_question_is_refused(site, viewer, run, body, headers, status):
    assert ask(site, run.folder, viewer, body, **headers).status == status


@pytest.mark.parametrize(
    "folder", ["none", "../secret", "lab/default/../../../etc", "/etc", "lab/default/%2e%2e", "a\0b"]
)
def test_hostile_names_are_no_runs(site, viewer, run, folder):
    assert ask(site, folder, viewer).status in (404, 422)


def test_a_run_without_a_model_says_so(site, viewer, runs):
    answer = ask(site, runs.live.folder, viewer)
    assert (answer.status, json.loads(answer.read())) == (409, {"detail": "This run has no model, or not yet."})
    assert "This run has no model, or not yet." in site.ask(f"/nightjar/runs/show/{runs.live.folder}", viewer).text


def test_a_model_that_is_damaged_or_leads_out_of_the_lake_is_an_error(site, viewer, tmp_path):
    run = finish(site.lake.run("damaged model", "default"))
    save_model(run.model, *untrained_model())
    weights = local_path(run.model) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    (event,) = events(ask(site, run.folder, viewer).read().decode())
    assert "The process ended with exit code 1: " in event["error"]
    weights.rename(tmp_path / "moved")
    weights.symlink_to(tmp_path / "moved")
    (event,) = events(ask(site, run.folder, viewer).read().decode())
    assert event["error"] == "model.safetensors is missing in the model's folder"


def processes():
    """Return the processes that write text."""
    found = [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"]]
    return [each for each in found if {"jobs", "sample", f"{sampling.NEW_TOKENS}"} <= set(each.info["cmdline"])]


def test_more_than_some_at_a_time_are_refused_and_a_process_ends_when_its_reader_leaves(site, viewer, run):
    with ExitStack() as stack:
        for _ in range(sampling.MOST_PROCESSES):
            stack.callback(ask(site, run.folder, viewer).close)
        refused = ask(site, run.folder, viewer)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
        until(lambda: len(processes()) == sampling.MOST_PROCESSES)
    until(lambda: not processes())
    assert ask(site, run.folder, viewer).status == 200


@pytest.fixture
def client(monkeypatch, lake_uri):
    """A client of the pages in this process, for whom every right is granted."""
    monkeypatch.setitem(app.dependency_overrides, READ_RUNS.dependency, lambda: None)
    monkeypatch.setenv("NIGHTJAR_LAKE", lake_uri)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def made(tmp_path):
    """A run with a model on disk."""
    run = Lake((tmp_path / "made").as_uri()).run("r", "default")
    configure(run)
    save_model(run.model, *untrained_model(is_endless=True))
    return run


@pytest.fixture
def other_run(lake_uri, made):
    """The same run in another lake on disk, and in S3."""
    files = store.list_files(made.uri)
    for file in files:
        aws.store().write_bytes(file.uri.replace(made.lake_uri, lake_uri), store.read_bytes(file.uri))
    return Lake(lake_uri).run("r", "default")


def lines_of(client, run):
    answer = client.post(f"/runs/try/{run.folder}", json=ASKED)
    assert answer.status_code == 200, answer.text
    return events(answer.text)


def test_a_model_in_any_lake_is_tried_with_the_python_of_the_job(client, other_run, made, capsysbinary, monkeypatch):
    monkeypatch.setattr(sampling, "find_spec", lambda name: None)  # Airflow's environment without torch
    page = client.get(f"/runs/show/{other_run.folder}").text
    assert "set NIGHTJAR_JOB_PYTHON to the path of the Python interpreter in the job&#39;s environment" in page
    assert "<textarea" not in page
    assert client.post(f"/runs/try/{other_run.folder}", json=ASKED).status_code == 409
    monkeypatch.setenv("NIGHTJAR_JOB_PYTHON", "/no/python")
    assert "NIGHTJAR_JOB_PYTHON names /no/python" in client.get(f"/runs/show/{other_run.folder}").text
    monkeypatch.setenv("NIGHTJAR_JOB_PYTHON", sys.executable)
    assert "<textarea" in client.get(f"/runs/show/{other_run.folder}").text
    text = "".join(line["text"] for line in lines_of(client, other_run))
    assert text == sampled(capsysbinary, made, ASKED["prompt"])


def test_the_secrets_of_airflow_are_not_passed_on(client, other_run, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nread line\nprintf '%s' \"$line\"\nenv\n")
    python.chmod(0o755)
    monkeypatch.setenv("NIGHTJAR_JOB_PYTHON", str(python))
    monkeypatch.setenv("AIRFLOW_CONN_X", "secret")
    seen = "".join(line.get("text", "") for line in lines_of(client, other_run))
    assert "PATH=" in seen
    assert "secret" not in seen
    assert "AWS_" not in seen


def test_a_process_has_a_time_limit(client, other_run, monkeypatch):
    monkeypatch.setattr(sampling, "SECONDS", 0.5)
    assert lines_of(client, other_run) == [{"error": "The text was cut off at the time limit of 0 seconds."}]
    until(lambda: not processes())


def test_a_model_too_large_to_copy_is_refused(client, other_run, monkeypatch):
    monkeypatch.setattr(sampling, "MOST_MODEL_BYTES", 10)
    lines = lines_of(client, other_run)
    if other_run.lake_uri.startswith("s3"):
        assert "at most 10 are copied for this box" in lines[0]["error"]
    else:
        assert "text" in lines[0]
