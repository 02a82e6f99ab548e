"""The commands that look at runs: plain lines and tables, comparisons, reports, and wrong names."""

import io
import os
import re
import shutil
import sys
import time
from dataclasses import asdict

import pytest

from jobs.cli.main import main
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, local_path
from jobs.prices.metering import ClusterUse, InstanceSpan, StepSpan
from tests.support.results import configure, finish


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A lake with two finished runs and one that was left."""
    folder = tmp_path_factory.mktemp("made")
    lake = Lake(folder.as_uri())
    finish(lake.run("one", "default"))
    finish(lake.run("two", "default"), valid_loss=4.0)
    configure(lake.run("two", "default"), train={"seed": 7, "batch_size": 64})
    left = lake.run("waits", "weekly")
    configure(left)
    an_hour_ago = time.time() - 3600
    os.utime(local_path(left.config), (an_hour_ago, an_hour_ago))
    return folder


@pytest.fixture
def lake(made, tmp_path, monkeypatch):
    """A copy of that lake, and a cache folder of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shutil.copytree(made, tmp_path / "lake")
    return Lake((tmp_path / "lake").as_uri())


@pytest.fixture
def call(lake, tmp_path, capsys):
    def run(*words, code=0):
        assert main([*words, "--lake", str(tmp_path / "lake")]) == code
        return capsys.readouterr()

    return run


def test_the_list_is_lines_of_cells(call):
    lines = [line.split("\t") for line in call("runs", "list").out.splitlines()]
    assert lines[0][:3] == ["run", "state", "started"]
    found = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    assert set(found) == {"default/one", "default/two", "weekly/waits"}
    assert found["default/one"]["validation loss"] == "4.362 (unigram 6.463)"
    assert (found["default/one"]["state"], found["weekly/waits"]["state"]) == ("done", "unfinished")
    assert (found["default/one"]["duration"], found["default/one"]["parameters"]) == ("2:26 min", "1,377,408")


def test_the_list_has_filters_and_pages(call):
    by_loss = call("runs", "list", "--sort", "valid_loss", "--ascending", "--limit", "1")
    assert by_loss.out.splitlines()[1].startswith("default/two\t")
    assert "1 to 1 of 3 runs; --page shows others" in by_loss.err
    assert (
        "default/one" in call("runs", "list", "--sort", "valid_loss", "--ascending", "--limit", "1", "--page", "2").out
    )
    assert call("runs", "list", "--status", "unfinished").out.splitlines()[1].startswith("weekly/waits")
    nothing = call("runs", "list", "--search", "nosuch")
    assert (nothing.out, "no run matches" in nothing.err) == ("", True)


def test_a_terminal_shows_tables(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    for words in (("list",), ("show", "one"), ("compare", "one", "two")):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        call("runs", *words)
        assert "4.362" in terminal.getvalue()
        assert "\t" not in terminal.getvalue()
        assert "─" in terminal.getvalue()


@pytest.mark.parametrize("width", [80, 60, 30])
def test_a_narrow_terminal_leaves_columns_out(call, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    call("runs", "list")
    lines = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    assert "parameters" not in lines[0] + lines[1]
    if width >= 60:
        found = next(line for line in lines if "default/one" in line)
        assert "done" in found
        assert "4.362 (unigram 6.463)" in found


def test_show_has_results_steps_and_the_curve(call, lake, tmp_path):
    lines = call("runs", "show", "one").out.splitlines()
    pairs = dict(line.split("\t", 1) for line in lines)
    assert (pairs["run"], pairs["state"], pairs["valid loss"]) == ("lab/default/one", "done", "4.362 nats per token")
    assert pairs["validation loss over time"][0] == "█"
    assert len(pairs["validation loss over time"]) == 20
    assert "train\tdone\t2:14 min\t" in lines
    report = local_path(join(lake.run("one", "default").stats, "report.html"))
    assert pairs["report"] == str(report)
    report.unlink()
    waits = call("runs", "show", "one").out
    assert (
        f"report\tnone yet; to write it, use: python -m jobs report lab/default/one --lake {tmp_path / 'lake'}" in waits
    )


def test_show_has_the_bill(call, lake):
    run = lake.run("one", "default")
    span, steps = InstanceSpan("m6i.xlarge", "on demand", 0.0, 7200.0, 2), (StepSpan("train", 600.0, 4200.0),)
    for rates in ({"m6i.xlarge on demand": 2.5}, {}):
        used = asdict(ClusterUse("eu-west-1", 40.0, (span,), steps, rates))
        record = {"number": 1, "asked": "2026-11-26T02:00:00+00:00", "cluster_id": "j-1", "ended": True}
        store.write_json(join(run.clusters, "0001.json"), {**record, "used": used})
        lines = call("runs", "show", "one").out.splitlines()
        pairs = dict(line.split("\t", 1) for line in lines)
        assert pairs["instance time"] == "4:00:00 h"
        if rates:
            assert pairs["cost"] == "10.00 USD"
            assert "train\tdone\t2:14 min\t2:00:00 h\t5.00 USD\t" in lines
        else:
            assert pairs["cost"] == "not known"
            assert pairs["cost in detail"].endswith("or add what is missing to the file that NIGHTJAR_PRICES names")


def test_compare_shows_results_and_the_settings_that_differ(call):
    lines = [line.split("\t") for line in call("runs", "compare", "one", "two").out.splitlines()]
    rows = {line[0]: line[1:] for line in lines}
    assert rows[""] == ["one", "two"]
    assert rows["valid loss"] == ["4.362 nats per token", "4 nats per token"]
    assert rows["train.seed"] == ["1,234", "7"]
    assert rows["train.batch_size"][1] == "64"
    assert "windows.size" not in rows


def test_wrong_names_are_one_line(call):
    for words, message in (
        (("runs", "show", "none"), "has no run 'none'; did you mean one?; run nightjar runs list to see all runs"),
        (
            ("runs", "show", "default/twoo"),
            "has no run 'default/twoo'; did you mean default/two?; run nightjar runs list to see all runs",
        ),
        (
            ("runs", "compare", "zzzzz", "b"),
            "has no run 'zzzzz'; check the name and --lake; run nightjar runs list to see all runs",
        ),
        (("runs", "compare", "one"), "runs compare: name two runs or more"),
        (("runs", "compare", "one", "one"), "lab/default/one is named twice"),
        (("report", "../x"), "has no run '../x'"),
        (
            ("runs", "list", "--status", "dead"),
            "--status dead: not a state of a run; choose one of done, failed, running,",
        ),
    ):
        error = call(*words, code=2).err
        assert message in error
        assert len(error.splitlines()) == 1


def test_a_run_that_ended_before_its_first_task_did_is_shown(call, lake):
    store.write_bytes(join(lake.run("refused", "default").stats, "report.html"), b"")
    assert "default/refused\tunfinished\t" in call("runs", "list").out
    assert "state\tunfinished" in call("runs", "show", "refused").out
    assert "report.html" in call("report", "default/refused").out
    assert "has no run 'lab'" in call("runs", "show", "lab", code=2).err  # the folder of a project


@pytest.mark.long
def test_runs_in_s3_are_listed_shown_compared_and_reported(s3_uri, capsys):
    lake = Lake(s3_uri)
    for name in ("one", "two"):
        finish(lake.run(name, "default"))
    for words in (("runs", "list"), ("runs", "show", "one"), ("runs", "compare", "one", "two"), ("report", "one")):
        assert main([*words, "--lake", s3_uri]) == 0
        assert "one" in capsys.readouterr().out
    written = {info.uri.rpartition("/")[2] for info in store.list_files(lake.run("one", "default").stats)}
    assert {"report.html", "loss.png", "spark-tasks.png"} <= written


def test_an_empty_lake_says_how_to_begin(tmp_path, capsys):
    assert main(["runs", "list", "--lake", str(tmp_path / "new")]) == 0
    assert "no runs yet; to start one, use: nightjar run --corpus" in capsys.readouterr().err


def test_the_report_is_written_anew_or_elsewhere(call, lake, tmp_path):
    report = local_path(join(lake.run("one", "default").stats, "report.html"))
    report.unlink()
    assert str(report) in call("report", "one").out.splitlines()
    assert report.read_text().startswith("<!doctype html>")
    call("report", "one", "--output", str(tmp_path / "out"))
    assert (tmp_path / "out" / "report.html").exists()
    (tmp_path / "file").touch()
    assert "this folder cannot be written to" in call("report", "one", "--output", str(tmp_path / "file"), code=2).err
