"""The files of statistics, and the progress of a step."""

import csv
import io

import pytest

from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join, local_path, to_uri
from jobs.metrics.columns import nearest_rank
from jobs.pipeline import Progress
from jobs.results.rows import evaluation_rows
from jobs.statistics.writer import to_csv, to_lines, write_step


def read_csv(run, name):
    return list(csv.DictReader(io.StringIO(store.read_bytes(join(run.stats, name)).decode())))


@pytest.mark.parametrize("where", ["file", "s3"])
def test_merged_files_have_all_steps_so_far(where, tmp_path, request):
    run = Lake(to_uri(str(tmp_path)) if where == "file" else request.getfixturevalue("s3_uri")).run("r")
    stage = {"stage": 0, "description": 'tokenize, "all"', "tasks": 3, "seconds": 1.5}
    executor = {"executor": "driver", "cores": 2, "cached_memory_bytes": 12345}
    counts = {"seconds": 2.0, "num_train_windows": 1234567, "num_valid_windows": 9}
    write_step(run, "windows", {**counts, "stages": [stage], "executors": [executor]})
    rows = [{**step_row(number), **(VALIDATION if number == 2 else {})} for number in (1, 2)]
    store.write_bytes(join(run.metrics_parts, "part-0000-a-000000.jsonl"), to_jsonl(rows))
    trained = {"seconds": 5.0, "valid_loss": 4.25, "error": None, "started": 1000.0}
    write_step(run, "train", {**trained, "stages": [{**stage, "stage": 1}], "executors": []})
    stats = store.read_json(join(run.stats, "stats.json"))
    assert (stats["valid_loss"], stats["num_train_windows"]) == (4.25, 1234567)
    assert stats["seconds"] == {"windows": 2.0, "train": 5.0}
    assert stats["steps"]["train"].keys() == trained.keys()
    assert [(row["step"], row["stage"], row["description"]) for row in read_csv(run, "spark.csv")] == [
        ("windows", "0", 'tokenize, "all"'),
        ("train", "1", 'tokenize, "all"'),
    ]
    assert [(row["step"], row["executor"]) for row in read_csv(run, "executors.csv")] == [("windows", "driver")]
    assert [(row["step"], row["valid_loss"]) for row in read_csv(run, "metrics.csv")] == [("2", "4.0")]
    assert store.exists(join(run.tensorboard, "events.out.tfevents.nightjar"))
    text = store.read_bytes(join(run.stats, "stats.txt")).decode()
    for words in ("1,234,567", "valid loss", "(all columns in metrics.csv)", "(all columns in spark.csv)", "12,345"):
        assert words in text


def test_columns_of_a_text_table_are_aligned():
    rows = [{"step": 100, "loss": 4.5, "what": "a\nb"}, {"step": 1000, "loss": 12.25, "what": "c"}]
    assert to_lines(rows, ("step", "loss", "absent", "what")) == [
        "   step   loss  what",
        "    100    4.5     a",
        "  1,000  12.25     c",
    ]
    assert to_lines([], ("step",)) == []


def test_a_csv_file_has_one_header_and_quoted_texts():
    assert to_csv([{"a": 1, "b": "x,y"}, {"a": 2, "b": 3.5}]) == b'"a","b"\n1,"x,y"\n2,3.5\n'
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        to_csv([{"a": 1}, {"a": 1, "b": 2}])


VALIDATION = {"valid_loss": 4.0, "valid_accuracy": 0.2, "perplexity": 54.6, "bits_per_byte": 2.0}


def step_row(step):
    """Return the metrics of a step as training writes them."""
    fixed = {"epoch": 0.5, "tokens": 10, "unigram_loss": 6.0, "learning_rate": 0.1, "seconds": 3.0, "cpu_load": 1.0}
    fixed |= {"sync_milliseconds": 0.5, "sync_bytes": 7, "gpu_bytes": 0}
    changing = {"loss": 10.0 - step, "gradient_norm": step, "resident_bytes": 100 - step}
    return {**fixed, "step": step, **changing, "step_milliseconds": 10.0 * step, "tokens_per_second": 100.0 * step}


def test_a_row_of_the_curves_aggregates_the_steps_since_the_previous_one():
    steps = [step_row(step) | (VALIDATION if step in (2, 3) else {}) for step in (1, 2, 3, 4)]
    first, second = evaluation_rows(steps)
    assert (first["step"], first["batch_loss"], first["gradient_norm_mean"], first["gradient_norm_max"]) == (
        2,
        8.5,
        1.5,
        2,
    )
    assert (first["step_milliseconds_p50"], first["step_milliseconds_p95"], first["sync_bytes"]) == (10, 20, 14)
    assert first["tokens_per_second"] == pytest.approx((100 * 10 + 200 * 20) / 30)
    assert (first["peak_resident_bytes"], second["peak_resident_bytes"], second["step"]) == (99, 97, 3)


def test_nearest_rank_percentiles():
    values = [float(value) for value in range(1, 101)]
    assert [nearest_rank(values, share) for share in (0.5, 0.95, 1.0, 0.001)] == [50, 95, 100, 1]
    assert nearest_rank([3.0], 0.5) == 3


def test_progress_is_written_at_most_once_per_interval(tmp_path):
    run = Lake(to_uri(str(tmp_path))).run("r")
    progress = Progress(run, "train", every_seconds=60)
    progress("one")
    progress("two")
    assert store.read_json(run.progress("train"))["message"] == "one"
    assert local_path(run.progress("train")).parent.name == "progress"


def test_damaged_statistics_of_another_step_are_named(tmp_path):
    run = Lake(to_uri(str(tmp_path))).run("r")
    for found in ([], {"a": "\ud800"}, {"stages": 3}):
        store.write_json(run.step_stats("tokenize"), found)
        with pytest.raises(DamagedError, match=r"r/stats: not what Nightjar writes .*delete it"):
            write_step(run, "windows", {"seconds": 2.0})
