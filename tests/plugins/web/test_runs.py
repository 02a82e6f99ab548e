"""The pages of runs, as a real API server of Airflow serves them: values, order, comparison, progress and errors."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import pytest

from jobs.lake import store
from jobs.lake.uri import join
from tests.support.pages import go_on
from tests.support.waiting import until

pytestmark = pytest.mark.airflow


class Parsed(HTMLParser):
    """The rows of tables, the metrics, and the addresses of a page."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.columns, self.metrics, self.text, self.tags, self.addresses = [], [], [], "", [], []
        self.live = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[name] for name in ("href", "src", "action") if name in values]
        if values.get("id") == "live":
            self.live = values
        if "data-run" in values:
            self.rows.append(values["data-run"])
        if "data-column" in values and tag == "th":
            self.columns.append(values["data-column"])
        if tag == "data":
            self.metrics.append((self.columns[len(self.metrics) % len(self.columns)], values["value"]))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(site, viewer):
    def ask(address, status=200):
        found = site.ask(f"/nightjar{address}", viewer, Accept="text/html")
        assert found.status == status, found.text[:3000]
        return Parsed(found.text)

    return ask


def show(run, **query):
    return f"/runs/show/{quote(run.folder)}" + (f"?{urlencode(query)}" if query else "")


def test_the_list_has_every_run_with_its_results(page, runs):
    found = page("/runs")
    assert set(found.rows) == {run.folder for run in (runs.first, runs.second, runs.failed, runs.live)}
    for text in (
        "4.362",
        "unigram 6.463",
        "train: step 90 of 600",
        "1,377,408",
        "2.045",
        "4 runs, page 1 of 1",
        "1:10:10 h",
        "1.75 USD",
        "champion",
        "b <second>",
        "other dag",
    ):
        assert text in found.text
    assert found.text.count("champion") == 1
    assert float(found.live["data-seconds"]) > 0  # since a run goes on
    assert "svg" not in found.tags


def test_the_page_of_a_run_has_its_bill_by_step(page, runs):
    text = page(show(runs.first)).text
    assert "1.75 USD" in text
    assert "40:00 min" in text
    assert "1.00 USD" in text


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_list_is_sorted_filtered_searched_and_paged_by_its_address(page, runs, order):
    losses = [runs.second.folder, runs.first.folder]
    by_loss = page(f"/runs?sort=valid_loss&order={order}").rows
    assert by_loss[:2] == (losses if order == "asc" else losses[::-1])
    assert page("/runs?status=failed").rows == [runs.failed.folder]
    assert set(page("/runs?status=failed&status=running").rows) == {runs.failed.folder, runs.live.folder}
    assert page("/runs?q=memory").rows == [runs.failed.folder]
    assert "No run matches" in page("/runs?q=nothing+has+this").text
    assert "The list has only 1 page" in page("/runs?page=7").text
    for wrong in ("page=0", "page=x", "sort=folder", "status=x", f"q={'a' * 201}", "order=up"):
        assert "This address has a wrong value" in page(f"/runs?{wrong}", 422).text


def test_a_page_of_a_run_has_the_values_of_its_metrics_csv(page, runs):
    found = page(show(runs.first))
    rows = csv.DictReader(io.StringIO(store.read_bytes(join(runs.first.stats, "metrics.csv")).decode()))
    assert found.metrics == [(name, value) for row in rows for name, value in row.items()]
    assert found.tags.count("svg") > 8
    for text in ("manual__2026-11-26T02:00", "My lord,", "bits per byte", "Spark ran", "Files and logs", "train.seed"):
        assert text in found.text
    assert f"/nightjar/lake/runs/{quote(runs.first.folder)}/" in found.addresses
    assert "data-seconds" not in found.live


def test_a_curve_is_drawn_from_the_rows_of_the_run(site, viewer, runs):
    html = site.ask(f"/nightjar{show(runs.first)}", viewer).text
    rows = list(csv.DictReader(io.StringIO(store.read_bytes(join(runs.first.stats, "metrics.csv")).decode())))
    marks = re.findall(r"<title>step ([\d,]+): valid loss ([\d.]+)", html)
    assert marks == [(row["step"], f"{float(row['valid_loss']):.4g}") for row in rows]


def test_a_failed_run_says_why(page, runs):
    assert "train: MemoryError: no <memory> (jobs/training/step.py:41, host node-1)" in page(show(runs.failed)).text


def test_the_part_of_a_live_run_grows(site, page, runs):
    address = show(runs.live, part="live")
    before = page(address)
    assert "step 90 of 600, 1:20 min left" in before.text
    assert before.live["data-state"] == "running"
    assert before.live["data-source"] == "?part=live"
    assert "main" not in before.tags
    added = f"step {go_on(runs.live)['step']}: valid loss"
    assert added not in before.text
    assert 2 < float(before.live["data-seconds"]) < 60
    until(lambda: added in page(address).text, what=added)


def test_a_dag_run_has_a_tab_before_and_after_its_first_task(page, runs):
    tab = "/runs/of?" + urlencode({"dag_id": "train_llm", "run_id": runs.first.run_id})
    assert "manual__2026-11-26T02:00" in page(tab).text
    other = "/runs/of?" + urlencode({"dag_id": "other dag", "run_id": runs.second.run_id})
    assert "b <second>" in page(other).text
    for dag_id in ("train_llm", "some other", "default"):
        waiting = page("/runs/of?" + urlencode({"dag_id": dag_id, "run_id": "../../none"}))
        assert "has written nothing to the lake" in waiting.text
        assert float(waiting.live["data-seconds"]) > 0


def test_runs_are_compared_by_curves_and_settings(page, runs):
    folders = [runs.first.folder, runs.second.folder, runs.live.folder]
    found = page("/runs/compare?" + urlencode({"run": folders}, doseq=True))
    assert "Validation loss at the last step is lowest in" in found.text
    assert found.tags.count("svg") >= 5
    html = found.text
    for text in ("train.seed", "77", "corpus", "file:///texts/other-plays-f393d09d07ea", "unigram baseline"):
        assert text in html
    assert "train.batch_size" not in html
    assert "Choose two runs" in page(f"/runs/compare?run={quote(folders[0])}", 400).text
    many = "/runs/compare?" + urlencode({"run": [*folders, *(f"x{each}" for each in range(6))]}, doseq=True)
    assert "wrong value" in page(many, 422).text


def test_pages_name_no_other_host_and_no_inline_script(site, viewer, runs):
    for address in ("/runs", show(runs.first), "/runs?q=none"):
        answer = site.ask(f"/nightjar{address}", viewer)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        parsed = Parsed(answer.text)
        assert all(each.startswith(("/nightjar/", "?")) for each in parsed.addresses)
        assert "style" not in parsed.tags
        assert not re.search(r"<[^>]+ (on[a-z]+|style)=", answer.text)
        for asset in (each for each in parsed.addresses if "/static/" in each):
            assert site.ask(asset, viewer).status == 200


def test_the_views_are_in_airflows_navigation_and_in_a_dag_run(site):
    token = site.token("admin")
    plugins = json.loads(site.ask("/api/v2/plugins", token).text)["plugins"]
    views = next(each for each in plugins if each["name"] == "nightjar")["external_views"]
    assert {(each["destination"], each["url_route"]) for each in views} == {
        ("nav", "nightjar-runs"),
        ("dag_run", "nightjar-run"),
    }
