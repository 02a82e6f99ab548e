"""The report: all figures of metrics.csv, hostile texts, runs with little or nothing, the layout of version 0.1."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.config import STEPS
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.lock import locked
from jobs.lake.outcome import Outcome
from jobs.lake.runs import find_run
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join, local_path
from jobs.metrics import metrics_of as metrics_of_table
from jobs.metrics.stats import STATISTICS
from jobs.results.pictures import picture_of
from jobs.results.report import read_report, to_html
from jobs.results.table import cells
from jobs.statistics.writer import write_step
from tests.support.results import configure, finish, stage, training_row, write_rows
from tests.support.waiting import PATIENCE_SECONDS

DATA = Path(__file__).parents[2] / "data"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Parsed(HTMLParser):
    """The parts of a page that the tests look at."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.columns, self.metrics, self.text, self.attributes = [], [], [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if "data-column" in values:
            self.columns.append(values["data-column"])
        if tag == "data":
            self.metrics.append((self.columns[len(self.metrics) % len(self.columns)], values["value"]))

    def handle_data(self, data):
        self.text += data


def page_of(run, cause=None):
    return Parsed(to_html(read_report(run).failed_by(cause)).decode())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a lake with a finished run."""
    folder = tmp_path_factory.mktemp("made")
    finish(Lake(folder.as_uri()).run("one", "default"))
    return folder


@pytest.fixture
def run(made, tmp_path):
    """The run of a copy of that lake."""
    return Lake(shutil.copytree(made, tmp_path / "lake").as_uri()).run("one", "default")


def test_a_run_in_s3_has_the_same_report(s3_uri, run):
    in_s3 = finish(Lake(s3_uri).run("one", "default"))
    written = Parsed(store.read_bytes(in_s3.report).decode())
    assert written.metrics == page_of(run).metrics == metrics_of(in_s3)
    assert written.text.partition("Made by")[0] == page_of(run).text.partition("Made by")[0]


def metrics_of(run):
    """Return the cells of metrics.csv in reading order."""
    rows = csv.DictReader(io.StringIO(store.read_bytes(join(run.stats, "metrics.csv")).decode()))
    return [cell for row in rows for cell in row.items()]


def test_every_figure_of_the_metrics_is_in_the_report(run):
    written = Parsed(store.read_bytes(run.report).decode())  # by the last step
    expected = metrics_of(run)
    assert len(expected) == 20 * 26
    assert written.metrics == page_of(run).metrics == expected


def test_curves_are_drawn_from_the_metrics(run):
    report = read_report(run)
    loss = report.training_figures()[0]
    rows = [(float(row["step"]), row["valid_loss"]) for row in report.rows]
    assert next(line for line in loss.lines if line.label == "valid loss").points == tuple(rows)
    assert [line.label for line in loss.lines if line.baseline] == ["unigram baseline", "bigram baseline"]
    final = rows[-1][1]
    below = f"{6.463 - final:.3f} below the unigram baseline"
    assert loss.title == f"Validation loss is {final:.3f} nats per token at the last step, {below}"
    assert f"step 600: valid loss {final:.4g} nats per token" in loss.to_svg()


def test_figures_have_the_units_and_meanings_of_the_schema(run):
    report = read_report(run)
    units = [plot.unit_text().removesuffix("over optimizer steps").strip() for plot in report.training_figures()]
    assert units == ["nats per token", "%", "", "", "thousand tokens/s", "MiB"]
    tiles = {tile.label: tile.text for tile in report.headline() + report.data_tiles()}
    assert tiles["valid loss"] == "4.362 nats per token"
    assert (tiles["valid accuracy"], tiles["ngram leak"], tiles["bytes"]) == ("21.0%", "1.23%", "4.82 MiB")
    assert "Mean loss on evenly spaced validation windows." in page_of(run).text


def test_the_data_and_spark_have_plots(run):
    report = read_report(run)
    titles = [plot.title for plot in (*report.data_figures(), *report.spark_figures())]
    assert titles == [
        "Half of the documents have at most 25 tokens",
        "52 documents were left out",
        "16.1% of the tokens are for validation",
        "The most frequent token is 5.00% of the text",
        "The steps took 2:26 min, train the longest",
        "Spark ran 20 tasks in 3 stages; 1 failed",
        "Spark shuffled 15 MiB",
        "Stragglers: in the worst stage the longest task took 3.0 times the mean",
    ]
    lengths = dict(report.data_figures()[0].groups)
    assert {label: value for label, (value,) in lengths.items()} == {
        "1": 3, "2": 40, "3 to 4": 0, "5 to 8": 0, "9 to 16": 0, "17 to 32": 20_000, "33 to 64": 18_899,
    }  # fmt: skip


HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=a> \" ' & \0 \ud800 </svg></style>"


def test_hostile_texts_are_escaped(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("<b>r</b>", "default")
    finish(run)
    configure(run, corpus=HOSTILE.replace("\0", "").replace("\ud800", ""), chosen=("corpus",))
    store.write_bytes(join(run.generate, "samples.jsonl"), to_jsonl([{"prompt": HOSTILE, "text": HOSTILE}]))
    stats = store.read_json(join(run.stats, "stats.json"))
    stats["steps"]["windows"] |= {"most_frequent_tokens": [[HOSTILE, 0.5]], "split": HOSTILE, "error": HOSTILE}
    store.write_json(join(run.stats, "stats.json"), stats)
    written = page_of(run)
    assert not {"script", "img", "b0", "iframe", "object", "link"} & set(written.tags)
    assert "<script>alert(1)</script><img src=http://evil.example/x" in written.text
    assert [name for _, name, _ in written.attributes if name.startswith("on")] == []
    assert "<b>r</b>" in written.text


def test_the_page_names_no_other_place(run):
    html = to_html(read_report(run)).decode()
    parsed = Parsed(html)
    assert [each for each in parsed.attributes if each[1] in ("src", "href", "srcset", "action", "data")] == []
    assert not {"@import", "url("} & set(html.split())
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in parsed.attributes


def browse(page, tmp_path):
    """Open a page in Chromium; return its content, and the addresses that the page itself asks for."""
    net_log = tmp_path / "net.json"
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--host-resolver-rules=MAP * ~NOTFOUND",
         f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={net_log}", page.as_uri()],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True,
    )  # fmt: skip
    requests = (event.get("params", {}) for event in json.loads(net_log.read_text())["events"])
    return done.stdout, {each["url"] for each in requests if each.get("initiator", "not an origin") != "not an origin"}


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_it_without_a_request(run, tmp_path):
    report = local_path(run.report)
    content, requests = browse(report, tmp_path)
    assert Parsed(content).metrics == metrics_of(run)
    assert requests == set()
    hostile = report.read_text().replace("</body>", "<img src='http://evil.example/a.png'></body>")
    report.write_text(hostile)
    assert browse(report, tmp_path)[1] == set()  # the page forbids it
    report.write_text(hostile.replace("Content-Security-Policy", "x"))
    assert browse(report, tmp_path)[1] == {"http://evil.example/a.png"}  # and without that the test would notice it


def test_a_run_that_used_a_model_shows_which_one_and_the_loss_on_its_text(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("one", "default")
    configure(run, use={"model": "champion", "task": "evaluate"})
    stats = {
        "used_model": "champion", "num_documents": 40, "num_bytes": 5000, "num_parameters": 126_272,
        "loss_unit": "nats", "text_loss_per_byte": 1.4, "text_bits_per_byte": 2.02,
    }  # fmt: skip
    write_step(run, "evaluate", {"error": None, "started": 1_795_572_000.0, "seconds": 3.0, **stats})
    report = read_report(run)
    tiles = {tile.label: tile.text for tile in report.headline()}
    assert tiles["used model"] == "champion"
    assert tiles["text bits per byte"] == "2.02"
    assert (report.summary.bits_per_byte, report.summary.valid_loss) == (2.02, None)
    assert [(step.name, step.status) for step in report.summary.steps] == [("evaluate", "done")]
    assert cells(report.summary)["note"] == "evaluate champion"
    page = page_of(run)
    assert "Model, used without training: champion" in page.text
    assert "No step of training has been recorded" not in page.text


def test_a_run_without_any_file_has_a_report(tmp_path):
    written = page_of(Lake((tmp_path / "lake").as_uri()).run("nothing"), cause="no cluster: <quota>")
    assert "no cluster: <quota>" in written.text
    assert ("span", "class", "status failed") in written.attributes
    assert "svg" not in written.tags


def test_a_run_whose_training_was_killed_has_the_curves_so_far(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("killed", "default")
    configure(run)
    write_rows(run, 100, 30)
    report = read_report(run)
    assert [row["step"] for row in report.rows] == [30, 60, 90]
    store.delete_folder(run.metrics_parts)
    write_rows(run, 20, 30)
    report = read_report(run)
    assert [row["step"] for row in report.rows] == list(range(1, 21))
    first = report.training_figures()[0]
    assert first.title == "Loss of the batches, before the first evaluation"
    assert [line.label for line in first.lines] == ["batch loss"]


def test_the_cause_of_a_failure_is_shown(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("failed", "default")
    configure(run)
    times = ("2026-11-26T02:00:00.000+00:00", "2026-11-26T02:01:00.000+00:00")
    outcome = Outcome("train", 2, 1, "MemoryError", "no <memory>", "jobs/training/step.py:41", "node-1", *times)
    store.write_bytes(run.outcome("train", 2), outcome.to_json())
    store.write_bytes(run.outcome("train", 1), b"{}")
    written = page_of(run)
    assert "train: MemoryError: no <memory> (jobs/training/step.py:41, host node-1)" in written.text
    assert ("span", "class", "status failed") in written.attributes


@pytest.mark.parametrize(
    ("decision", "shown"),
    [
        ({"promoted": True, "why": "the first champion"}, "The model was promoted: the first champion."),
        ({"promoted": False, "why": "<b>\nworse"}, "The model was not promoted: <b> worse."),
        ({"promoted": 1, "why": 3}, None),
        ({}, None),
    ],
)
def test_the_decision_about_promotion_is_shown_with_its_reason(run, decision, shown):
    store.write_json(run.promotion, decision)
    text = " ".join(page_of(run).text.split())
    assert ("The model was" in text) == bool(shown)
    assert (shown or "") in text


def test_the_layout_of_version_0_1_has_a_report(tmp_path):
    shutil.copytree(DATA / "lake-0.1", tmp_path / "lake")
    run = find_run("old", Lake((tmp_path / "lake").as_uri()))
    written = page_of(run)
    assert written.metrics == metrics_of(run)
    assert "Half of the documents have at most 126 tokens" in written.text
    assert "elr ons int" in written.text
    assert ("span", "class", "status done") in written.attributes


def test_damaged_files_leave_a_gap_that_is_named(run):
    store.write_bytes(join(run.stats, "spark.csv"), b'"a","b"\n1\n')
    store.write_bytes(join(run.stats, "stats.json"), b"{")
    store.write_bytes(join(run.generate, "samples.jsonl"), b"[]\nnonsense\n{}\n")
    store.write_bytes(run.lock, b"[")
    written = page_of(run)
    assert "spark.csv: not what Nightjar writes" in written.text
    assert "stats.json: not valid JSON" in written.text
    assert written.metrics == metrics_of(run)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'"step"\n"a"\n', ""),
        (b'"step","valid_loss"\n"a",1\n1,inf\n2,1' + b"0" * 400 + b"\n", ""),
        (b'"step","x"\n1,"' + b"y" * 200_000 + b'"\n', "field larger than field limit"),
        (b'"step"\n1\r2\n', "new-line character"),
        (b"\xff", "'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_metrics_csv_leaves_a_page(run, content, problem, request):
    request.addfinalizer(partial(csv.field_size_limit, csv.field_size_limit(131_072)))  # files of vectors raise it
    store.write_bytes(join(run.stats, "metrics.csv"), content)
    store.write_bytes(join(run.train, "_manifest.json"), b"{}")  # so that the file counts alone
    report = read_report(run)
    assert [problem in each for each in report.problems] == ([True] if problem else [])
    assert "All metrics" in page_of(run).text or problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just(1e308),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({name for table in STATISTICS.values() for name in metrics_of_table(table)})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_values_in_the_statistics_and_the_configuration_make_a_page(run, data):
    names = st.sampled_from(NAMES)
    steps = data.draw(st.dictionaries(st.sampled_from(STEPS), JSON | st.dictionaries(names, JSON, max_size=5)))
    stats = data.draw(st.dictionaries(names, JSON, max_size=5)) | {"steps": steps, "seconds": data.draw(JSON)}
    store.write_bytes(join(run.stats, "stats.json"), json.dumps(stats).encode())
    config = data.draw(JSON | st.fixed_dictionaries({"chosen": JSON, "corpus": JSON, "train": JSON}))
    store.write_bytes(run.config, json.dumps(config).encode())
    report = read_report(run)
    assert to_html(report).startswith(b"<!doctype html>")
    for plot in (*report.training_figures(), *report.data_figures(), *report.spark_figures()):
        ElementTree.fromstring(picture_of(plot))


def test_numbers_that_are_not_finite_break_a_curve(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("nan", "default")
    configure(run)
    rows = [training_row(step, is_evaluated=True) for step in range(1, 6)]
    rows[2]["valid_loss"] = math.nan
    store.write_bytes(join(run.metrics_parts, "part-0000-a-000000.jsonl"), to_jsonl(rows))
    svg = read_report(run).training_figures()[0].to_svg()
    paths = [part for part in svg.split("<path") if 'class="s1"' in part]
    assert paths[0].count("M") == 2
    assert "nan" not in svg


def test_thousands_of_stages_and_rows_stay_readable(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("long", "default")
    configure(run)
    write_rows(run, 3000, 1)
    spike = {**training_row(1235, is_evaluated=True), "gradient_norm": 77.0}
    rest = [training_row(step, is_evaluated=True) for step in range(1236, 3001)]
    store.write_bytes(join(run.metrics_parts, "part-0001-a-000000.jsonl"), to_jsonl([spike, *rest]))
    stages = [stage(number, longest=2.0 + number % 50) for number in range(2000)]
    write_step(run, "train", {"started": 1.0, "seconds": 1.0, "error": None, "stages": stages, "executors": []})
    report = read_report(run)
    assert len(report.rows) == 3000
    assert all(len(plot.to_svg()) < 60_000 for plot in report.training_figures())
    gradient = next(plot for plot in report.training_figures() if plot.name == "gradient-norm")
    assert gradient.title.startswith("Largest gradient norm is 77 at most")
    tops = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", gradient.to_svg())]
    assert min(tops) < 60  # the peak of one step of 3,000 is drawn
    written = page_of(run)
    assert "the first 60 of 2000" in written.text
    assert "1,000 of the 3,000 rows, evenly spaced; all are in metrics.csv" in written.text
    shown = [value for name, value in written.metrics if name == "step"]
    assert (len(shown), shown[0], shown[-1]) == (1000, "1", "3000")
    assert set(written.metrics) <= set(metrics_of(run))
    assert len(to_html(report)) < 3_000_000


def test_long_texts_are_cut(run):
    configure(run, corpus="\n".join(["file:///texts/shakespeare"] * 50_000))
    store.write_bytes(join(run.generate, "samples.jsonl"), to_jsonl([{"prompt": "a", "text": "b" * 900_000}] * 6))
    stats = store.read_json(join(run.stats, "stats.json"))
    store.write_json(join(run.stats, "stats.json"), {**stats, "valid_loss": "x" * 900_000})
    assert len(to_html(read_report(run))) < 400_000


def test_the_report_of_a_run_that_is_worked_on_says_so_unless_it_is_over(run):
    store.delete_file(run.step_stats("generate"))
    with locked(run):
        assert read_report(run).summary.status == "running"
        assert read_report(run, is_over=True).summary.status == "done"
