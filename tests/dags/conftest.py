"""Fixtures of the DAGs' tests: the embedded EMR, a corpus, and runs of `train_llm`.

Runs use a stand-in for the job that needs no Spark, unless a test passes `package_root=PROJECT_ROOT`.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.airflow.environment import environment
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from nightjar.aws import store
from tests.support import airflow
from tests.support.headless import run_dag
from tests.support.live import live_user
from tests.support.no_spark import no_spark
from tests.support.receiver import receiver
from tests.support.waiting import until


@dataclass(frozen=True)
class Finished:
    """A finished run: its exit code, its log and its folder in the lake."""

    code: int
    log: str
    run: Run
    stats_dir: Path


@pytest.fixture(scope="session")
def emr(tmp_path_factory):
    """An embedded EMR whose steps need no Spark."""
    folder = tmp_path_factory.mktemp("emr")
    with airflow.emr_process(folder, no_spark(folder / "no-spark")) as running:
        yield running


@pytest.fixture
def aws(emr, monkeypatch):
    """Point Airflow's connection in this process to the embedded EMR, and return a client of it."""
    airflow.connect(monkeypatch, emr.endpoint)
    return emr.client


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "a text.txt"
    path.write_text("The man starts with a question.\n\n" * 200)
    return str(path)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The Airflow home of all headless runs."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def headless(emr, corpus, home, tmp_path):
    """Run `train_llm` without Airflow's servers. The keys of `conf` are dotted; variables are of the environment."""

    def run(lake_uri, conf, package_root=airflow.STANDIN, **variables):
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        stats_dir, log = tmp_path / "stats", tmp_path / "dag.log"
        chosen = {"NIGHTJAR_PACKAGE_ROOT": str(package_root), "NIGHTJAR_STATS_DIR": str(stats_dir)}
        chosen |= {"NIGHTJAR_POLL_SECONDS": "0.3", **variables}
        environ = {**environment(home, lake_uri, emr.endpoint), **chosen}
        code = run_dag({"corpus": corpus, "preset": "tiny", **conf}, run_id, environ, log)
        return Finished(code, log.read_text(), Lake(lake_uri).run(run_id, DEFAULT), stats_dir)

    return run


POEMS = """
corpus = "{corpus}"
preset = "tiny"
train.batch_size = 4

[pipeline]
schedule = "30 3 1 1 *"
timezone = "Europe/Berlin"
max_active_runs = 2

[[pipeline.notify]]
on = ["failure"]
notifier = "airflow.providers.http.notifications.http.HttpNotifier"
http_conn_id = "chat"
json = {{ text = "{{{{ run_id }}}} of {{{{ dag.dag_id }}}} failed" }}

[[pipeline.notify]]
on = ["promotion"]
notifier = "airflow.providers.http.notifications.http.HttpNotifier"
http_conn_id = "chat"
json = {{ text = "{{{{ run_id }}}}: {{{{ decision.why }}}}" }}
"""


@pytest.fixture(scope="module")
def chat():
    """What receives the notifications of the live Airflow's pipelines."""
    with receiver() as running:
        yield running


@pytest.fixture(scope="module")
def live(tmp_path_factory, corpus, chat):
    """A user of a real Airflow with scheduler, triggerer and API, whose steps need no Spark.

    It has `train_llm`, the pipeline `poems`, and the pipeline `broken`, whose file is wrong.
    """
    folder = tmp_path_factory.mktemp("pipelines")
    (folder / "poems.toml").write_text(POEMS.format(corpus=corpus))
    (folder / "broken.toml").write_text("train.batchsize = 4")
    variables = {"NIGHTJAR_PIPELINES": str(folder), "AIRFLOW_CONN_CHAT": f"http://127.0.0.1:{chat.port}"}
    variables |= no_spark(folder / "no-spark", seconds=2)
    with live_user(tmp_path_factory.mktemp("live"), corpus, extra_env=variables) as logged_in:
        yield logged_in


@pytest.fixture
def progress():
    """Wait until a step of a run reports progress."""

    def wait(run, step):
        until(lambda: store().exists(run.progress(step)), what=f"{step} has started")
        return store().read_json(run.progress(step))["message"]

    return wait
