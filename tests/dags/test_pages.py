"""The pages of runs in Chromium, of a real Airflow whose runs are those of the real job: ``make test-pages``."""

import csv
import io

import pytest

from jobs.lake import store
from jobs.lake.uri import join
from tests.support.browser import CHROMIUM, browser
from tests.support.nights import nights
from tests.support.real_job import CONF, poems

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.spark,
    pytest.mark.pages,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
FRAME = "document.querySelector('iframe').contentDocument"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights")
    (folder / "poems.txt").write_bytes(poems())
    first = CONF | {"train.eval_every": 10}
    with nights(folder, folder / "poems.txt", first, {"train.seed": 5, "train.learning_rate": 2e-3}) as running:
        yield running


@pytest.fixture(scope="module")
def tab(scene, tmp_path_factory):
    """A tab whose user has logged in by the form of Airflow."""
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        opened.open(f"{scene.user.airflow.url}/")
        opened.wait("document.querySelectorAll('form input').length === 2")
        for place, value in enumerate(("admin", scene.user.airflow.password)):
            opened.evaluate(f"document.querySelectorAll('form input')[{place}].focus()")
            opened.command("Input.insertText", text=value)
        opened.evaluate("document.querySelector('form button[type=submit], button[type=submit]').click()")
        opened.wait("[...document.querySelectorAll('a')].some((each) => each.href.endsWith('/plugin/nightjar-runs'))")
        yield opened
        assert opened.hosts() == {"127.0.0.1"}
        assert [each for each in opened.errors if "/nightjar/" in each] == []


def show(scene, run):
    return f"{scene.user.airflow.url}/nightjar/runs/show/{run.folder}"


def test_the_list_in_airflow_has_all_runs_with_their_states(tab, scene):
    tab.evaluate("[...document.querySelectorAll('a')].find((a) => a.href.endsWith('/plugin/nightjar-runs')).click()")
    tab.wait(f"{FRAME}.querySelectorAll('tr[data-run]').length === 4")
    texts = "['a', '.status'].map((name) => row.querySelector(name).innerText)"
    assert dict(tab.evaluate(f"[...{FRAME}.querySelectorAll('tr[data-run]')].map((row) => {texts})")) == {
        "baseline": "done",
        "higher-learning-rate": "done",
        "text-too-short": "failed",
        "in-progress": "running",
    }


def test_the_curves_of_a_finished_run_are_its_metrics(tab, scene):
    tab.open(show(scene, scene.runs.first))
    rows = list(csv.DictReader(io.StringIO(store.read_bytes(join(scene.runs.first.stats, "metrics.csv")).decode())))
    assert len(rows) > 1
    marks = "[...document.querySelectorAll('figure circle title')].map((each) => each.textContent)"
    of_loss = [each for each in tab.evaluate(marks) if ": valid loss " in each]
    losses = [f"step {int(row['step']):,}: valid loss {float(row['valid_loss']):.4g} nats per token" for row in rows]
    assert of_loss == losses
    cells = "[...document.querySelectorAll('#metrics tbody tr')].map((row) => [...row.querySelectorAll('data')]"
    assert tab.evaluate(f"{cells}.map((each) => each.value))") == [list(row.values()) for row in rows]
    assert "instance time" in tab.evaluate("document.querySelector('.tiles').innerText")


def test_a_failed_run_says_why(tab, scene):
    tab.open(show(scene, scene.runs.failed))
    cause = tab.evaluate("document.querySelector('.cause').innerText")
    assert "preflight: " in cause
    assert "its log has the cause" not in cause


def test_the_curve_of_the_run_in_progress_grows_without_a_reload(tab, scene):
    tab.open(show(scene, scene.runs.live))
    tab.evaluate("window.isSame = true")
    count = "document.querySelectorAll('figure svg')[0].querySelectorAll('circle').length"
    tab.wait(f"{count} > 0", 300)
    before = tab.evaluate(count)
    tab.wait(f"{count} > {before}", 300)
    assert tab.evaluate("window.isSame")


def test_a_comparison_has_the_settings_that_differ(tab, scene):
    tab.open(f"{scene.user.airflow.url}/nightjar/runs")
    for run in (scene.runs.first, scene.runs.second):
        tab.evaluate(f"document.querySelector('input[value=\"{run.folder}\"]').click()")
    tab.evaluate("document.querySelector('form[action$=compare] button').click()")
    tab.wait("document.querySelectorAll('figure svg').length >= 5")
    keys = "[...document.querySelectorAll('table.beside')].at(-1).querySelectorAll('tr[data-key]')"
    assert set(tab.evaluate(f"[...{keys}].map((each) => each.dataset.key)")) == {"train.seed", "train.learning_rate"}
