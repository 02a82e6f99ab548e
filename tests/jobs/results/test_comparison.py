"""Runs beside each other: a curve of its own colour for each, shared baselines, differences, and names."""

import pytest

from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.results.comparison import Comparison, names_of
from jobs.results.figures import of_comparison
from jobs.results.report import read_report
from jobs.results.svg import legend
from tests.support.results import configure, finish, training_row


def rows_of(steps=60, **values):
    return [training_row(step, is_evaluated=True) | values for step in range(20, steps + 1, 20)]


def test_each_run_has_a_curve_of_its_own_colour_in_all_plots():
    late = [{key: value for key, value in row.items() if key != "bits_per_byte"} for row in rows_of(80)]
    plots = {plot.name: plot for plot in of_comparison({"a": late, "b": rows_of(40), "c": rows_of(60)})}
    loss = plots["compare-valid_loss"]
    assert [line.label for line in loss.lines] == ["a", "b", "c", "unigram baseline", "bigram baseline"]
    assert [style for style, _, _ in legend(loss)][:3] == ["s0", "s1", "s2"]
    assert loss.title.startswith("Validation loss at the last step is lowest in a: ")
    assert [(style, label) for style, label, _ in legend(plots["compare-bits_per_byte"])] == [("s1", "b"), ("s2", "c")]
    svg = loss.to_svg()
    assert all(svg.count(f'<path class="s{number}"') == 1 for number in range(3))


def test_a_baseline_that_differs_is_left_out():
    plots = list(of_comparison({"a": rows_of(), "b": rows_of(unigram_loss=7.0)}))
    assert [line.label for line in plots[0].lines] == ["a", "b", "bigram baseline"]


def test_losses_of_other_units_have_a_plot_of_their_own():
    vectors = [
        {key: value for key, value in row.items() if key not in ("unigram_loss", "bigram_loss")}
        | {"mean_vector_loss": 2.0}
        for row in rows_of()
    ]
    losses = [plot for plot in of_comparison({"words": rows_of(), "vectors": vectors}) if "valid_loss" in plot.name]
    assert [(plot.unit, plot.lines[0].label) for plot in losses] == [
        ("nats per token", "words"),
        ("squared distance", "vectors"),
    ]


def test_runs_without_rows_have_no_plots():
    assert list(of_comparison({"a": [], "b": []})) == []


def test_results_and_settings_that_differ(tmp_path):
    lake = Lake((tmp_path / "lake").as_uri())
    runs = [finish(lake.run("same", "one")), lake.run("same", "two")]
    configure(runs[1], train={"seed": 77})
    comparison = Comparison(names_of(runs), [read_report(run) for run in runs])
    assert comparison.names == ["lab/one/same", "lab/two/same"]
    assert comparison.results()["state"] == ["done", "running"]  # its DAG has just written its configuration
    assert comparison.results()["valid loss"] == ["4.362 nats per token", "-"]
    assert comparison.settings()["train.seed"][1] == 77
    assert "train.learning_rate" not in comparison.settings()
    with pytest.raises(InputError, match="lab/one/same is named twice"):
        names_of([runs[0], runs[0]])
