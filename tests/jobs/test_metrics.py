"""The schema of metrics, and the lists of names that are read from it."""

import json

import pytest

from jobs.lake.strict_json import to_jsonl
from jobs.metrics import Order, Show, metrics_of, names
from jobs.metrics.columns import BASELINE_LOSSES, EvaluationRow, StepRow, baselines_text, length_text
from jobs.metrics.stats import STATISTICS, SUMMARY_METRICS, ExecutorRow, StageRow


@pytest.mark.parametrize("table", [StepRow, EvaluationRow, StageRow, ExecutorRow, *STATISTICS.values()])
def test_every_field_is_described(table):
    assert set(metrics_of(table)) == set(table.__annotations__)
    for metric in metrics_of(table).values():
        assert metric.meaning.endswith(".")


def test_columns_are_in_the_order_of_the_fields():
    assert list(metrics_of(EvaluationRow))[:5] == ["step", "epoch", "tokens", "train_loss", "valid_loss"]
    assert names(EvaluationRow, Show.TABLE)[-1] == "cpu_load"
    assert metrics_of(EvaluationRow)["step"].order is Order.INCREASING


def test_a_column_is_an_earlier_metric_or_computed_from_one():
    for name, metric in metrics_of(EvaluationRow).items():
        # The seconds of an interval are a difference to the row before.
        assert metric.over or name in {*metrics_of(StepRow), "interval_seconds"}


def test_the_summary_names_its_steps():
    assert ("train", "bigram_loss") in SUMMARY_METRICS
    assert ("windows", "num_valid_windows") in SUMMARY_METRICS
    meanings = {(name, metrics_of(STATISTICS[step])[name].meaning) for step, name in SUMMARY_METRICS}
    assert len(meanings) == len({name for name, _ in meanings})


def test_baselines_for_a_log_line():
    assert list(BASELINE_LOSSES) == ["unigram_loss", "bigram_loss", "mean_vector_loss"]
    assert baselines_text({"bigram_loss": 5.312, "unigram_loss": 6.468, "loss": 1.0}) == "unigram 6.47, bigram 5.31"


def test_the_length_of_a_training_for_a_log_line():
    assert length_text({"num_steps": 1390, "stopped_early": False}) == "1,390 steps"
    ended = {"num_steps": 2, "stopped_by_time": True, "stopped_early": False, "stopped_by_budget": False}
    assert length_text(ended) == "2 steps, ended by train.max_seconds"


def test_rows_as_lines_of_json():
    assert [json.loads(line) for line in to_jsonl([{"a": 1}, {"b": 0.5}]).splitlines()] == [{"a": 1}, {"b": 0.5}]
