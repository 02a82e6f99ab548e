"""The pages of runs in Chromium: in Airflow's UI, in its themes, on a phone, without scripts, and as they change."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest

from infra.airflow.environment import PROJECT_ROOT
from jobs.model_io.folder import save_model
from tests.support.browser import CHROMIUM, browser
from tests.support.models import untrained_model
from tests.support.pages import go_on, views
from tests.support.results import finish

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
AXE = PROJECT_ROOT / ".cache" / "axe" / "axe_playwright_python" / "axe.min.js"
FRAME = "document.querySelector('iframe').contentDocument"


@pytest.fixture(scope="module")
def tab(tmp_path_factory, site, runs):
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        opened.log_in(site.url, site.token("admin"))
        yield opened
        assert opened.hosts() == {"127.0.0.1"}


@pytest.fixture(autouse=True)
def _no_errors(tab):
    tab.errors.clear()
    yield
    tab.evaluate("1")
    assert [each for each in tab.errors if "/nightjar/" in each] == []


def test_the_list_is_in_airflows_ui_and_its_links_work_there(tab, site, runs):
    tab.open(f"{site.url}/")
    tab.wait("[...document.querySelectorAll('a')].some((each) => each.href.endsWith('/plugin/nightjar-runs'))")
    tab.open(f"{site.url}/plugin/nightjar-runs")
    loaded = f"{FRAME}.readyState === 'complete'"
    tab.wait(f"{loaded} && {FRAME}.querySelectorAll('tr[data-run]').length === 4")
    first = f"{FRAME}.querySelector('tr[data-run=\"{runs.first.folder}\"] a')"
    figures = f"{FRAME}.querySelectorAll('figure svg').length > 8"
    follow(tab, first, f"location.pathname.includes('/runs/show/') && {loaded} && {figures}")
    files = f"{FRAME}.body.innerText.includes('config.json')"
    follow(tab, link("all files", ".links a"), f"location.pathname.includes('/lake/runs/') && {loaded} && {files}")
    follow(tab, link("stats/"), f"{FRAME}.body.innerText.includes('metrics.csv')")  # the login's cookie is still sent


def link(text, among="a"):
    """Return the expression of the inner page's link with this text."""
    return f"[...{FRAME}.querySelectorAll('{among}')].find((each) => each.innerText === '{text}')"


def follow(tab, element, arrived):
    """Click a link of the inner page until its page is there.

    Airflow writes the address of each inner page into its own, and then loads it anew. An earlier click is lost.
    """
    for _ in range(5):
        tab.evaluate(f"{element}?.click()")
        with suppress(AssertionError):
            tab.wait(arrived, 15)
            return
    tab.wait(arrived, 1)


def test_the_page_has_the_theme_of_airflow(tab, site, runs):
    back = "getComputedStyle(document.body).backgroundColor"
    tab.open(f"{site.url}/nightjar/runs")
    colours = {}
    for theme in ("dark", "light"):
        tab.evaluate(f"localStorage.setItem('theme', '{theme}')")
        tab.open(f"{site.url}/nightjar/runs")
        colours[theme] = tab.evaluate(back)
    assert colours == {"dark": "rgb(20, 22, 26)", "light": "rgb(251, 251, 250)"}


def test_the_curve_of_a_live_run_grows_without_a_reload(tab, site, runs):
    tab.open(f"{site.url}/nightjar/runs/show/{runs.live.folder}")
    marks = (
        "[...document.querySelector('figure svg').querySelectorAll('circle.s1 title')].map((each) => each.textContent)"
    )
    before = tab.evaluate(marks)
    tab.evaluate("window.isSame = true")
    tab.evaluate("document.querySelector('#metrics').open = true")
    row = go_on(runs.live)
    tab.wait(f"{marks}.length === {len(before) + 1}", 90)
    after = tab.evaluate(marks)
    assert after[: len(before)] == before
    assert after[-1] == f"step {row['step']}: valid loss {row['valid_loss']:.4g} nats per token"
    assert tab.evaluate("window.isSame")
    assert tab.evaluate("document.querySelector('#metrics').open")
    assert "Updated at" in tab.evaluate("document.querySelector('#updated').innerText")


def test_two_marked_runs_are_compared(tab, site, runs):
    tab.open(f"{site.url}/nightjar/runs")
    for run in (runs.first, runs.second):
        tab.evaluate(f"document.querySelector('input[value=\"{run.folder}\"]').click()")
    tab.evaluate("document.querySelector('form[action$=compare] button').click()")
    tab.wait("document.querySelectorAll('figure svg').length >= 5")
    keys = "[...document.querySelectorAll('tr[data-key]')].map((each) => each.dataset.key)"
    assert {"corpus", "train.seed", "valid loss"} <= set(tab.evaluate(keys))
    assert tab.evaluate("document.querySelector('figure svg').querySelectorAll('path.s0, path.s1').length") == 2


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(tab, site, runs, width):
    tab.resize(width, 900)
    compared = f"/runs/compare?run={runs.first.folder}&run={runs.live.folder}"
    for address in ("/runs", f"/runs/show/{runs.first.folder}", f"/runs/show/{runs.failed.folder}", compared):
        tab.open(f"{site.url}/nightjar{address}")
        assert (address, tab.evaluate("document.documentElement.scrollWidth") <= width) == (address, True)
    tab.open(f"{site.url}/nightjar/runs")
    assert tab.evaluate("document.querySelector('.wide').scrollWidth <= document.querySelector('.wide').clientWidth")


def test_the_list_works_without_scripts(tab, site, runs):
    tab.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.command("Page.navigate", url=f"{site.url}/nightjar/runs?sort=valid_loss&order=asc")
        tab.wait("document.querySelectorAll('tr[data-run]').length === 4")
        assert tab.evaluate("document.querySelector('tr[data-run]').dataset.run") == runs.second.folder
        assert not tab.evaluate("document.documentElement.dataset.theme")
    finally:
        tab.command("Emulation.setScriptExecutionDisabled", value=False)


def test_every_control_has_a_name_and_headings_are_in_order(tab, site, runs):
    controls = "a, button, input:not([type=hidden]), svg[role=img], table"
    check = f"""JSON.stringify([...document.querySelectorAll('{controls}')]
        .filter((each) => !(each.textContent.trim() || each.ariaLabel || each.labels?.length))
        .map((each) => each.outerHTML.slice(0, 200)))"""
    for address in ("/runs", f"/runs/show/{runs.first.folder}", f"/runs/show/{runs.failed.folder}"):
        tab.open(f"{site.url}/nightjar{address}")
        assert json.loads(tab.evaluate(check)) == []
        levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))


def faults(tab):
    """Return what axe finds wrong in a page, by the rule."""
    tab.evaluate(AXE.read_text("utf-8") + "; undefined")
    violations = tab.evaluate("axe.run().then((results) => results.violations)")
    return {
        each["id"]: (each["impact"], [node["html"] for node in each["nodes"]][:3], each["help"]) for each in violations
    }


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: make .cache/axe/made")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault(tab, site, runs, theme, width):
    tab.resize(width, 900)
    tab.open(f"{site.url}/nightjar/runs")
    tab.evaluate(f"localStorage.setItem('theme', '{theme}')")
    found = {}
    for view, address in views(runs).items():
        tab.open(f"{site.url}/nightjar{address}")
        tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found |= {(view, fault): about for fault, about in faults(tab).items()}
    tab.errors[:] = [each for each in tab.errors if "404" not in each]  # of the view of a run that is not there
    assert found == {}


def test_the_box_shows_the_text_of_the_model(tab, site, runs):
    run = finish(site.lake.run("tried", "default"))
    save_model(run.model, *untrained_model(is_endless=True))
    tab.open(f"{site.url}/nightjar/runs/show/{run.folder}")
    field = "document.querySelector('form.try').elements"
    tab.evaluate(f"{field}.prompt.value = 'the <b>copy</b>'; {field}.temperature.value = '0'")
    tab.evaluate("document.querySelector('form.try [type=submit]').click()")
    tab.wait("document.querySelector('form.try [role=status]').textContent === 'Done.'", 120)
    made = tab.evaluate("document.querySelector('form.try .made').textContent")
    assert made.startswith("the <b>copy</b>")
    assert len(made) > 100
    if AXE.exists():
        assert faults(tab) == {}
    tab.evaluate("document.querySelector('form.try [type=submit]').click()")
    tab.wait("!document.querySelector('[data-stop]').hidden")
    tab.evaluate("document.querySelector('[data-stop]').click()")
    tab.wait("document.querySelector('form.try [role=status]').textContent === 'Stopped.'")
    tab.open(f"{site.url}/nightjar/runs/show/{runs.live.folder}")
    assert "This run has no model, or not yet." in tab.evaluate("document.body.innerText")
