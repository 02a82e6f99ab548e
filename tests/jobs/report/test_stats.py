"""Statistics as files."""

import csv
import io

import pytest

from jobs import lake
from jobs.paths import Lake, join, local_path, to_uri
from jobs.report.curves import evaluations, nearest_rank
from jobs.report.progress import Progress
from jobs.report.stats import to_csv, write_step


def test_merged_files_grow_step_by_step(tmp_path):
    run = Lake(to_uri(str(tmp_path))).run("r")
    stage = {"stage": 0, "description": 'tokenize, "all"', "tasks": 3, "seconds": 1.5}
    write_step(
        run, "windows", {"seconds": 2.0, "num_train_windows": 1234567, "num_valid_windows": 9, "stages": [stage]}
    )
    write_step(run, "train", {"seconds": 5.0, "valid_loss": 4.25, "error": None, "stages": [{**stage, "stage": 1}]})
    stats = lake.read_json(join(run.stats, "stats.json"))
    assert (stats["valid_loss"], stats["num_train_windows"]) == (4.25, 1234567)
    assert stats["seconds"] == {"windows": 2.0, "train": 5.0}
    assert "stages" not in stats["steps"]["train"]
    rows = list(csv.DictReader(io.StringIO(lake.read_bytes(join(run.stats, "spark.csv")).decode())))
    assert [(row["step"], row["stage"], row["description"]) for row in rows] == [
        ("windows", "0", 'tokenize, "all"'),
        ("train", "1", 'tokenize, "all"'),
    ]
    text = lake.read_bytes(join(run.stats, "stats.txt")).decode()
    assert "1,234,567" in text
    assert "valid loss" in text


def test_csv_has_one_header_and_quotes():
    assert to_csv([{"a": 1, "b": "x,y"}, {"a": 2, "b": 3.5}]) == b'a,b\n1,"x,y"\n2,3.5\n'
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        to_csv([{"a": 1}, {"a": 1, "b": 2}])


def test_one_row_for_each_validation():
    fixed = {"epoch": 0.5, "tokens": 10, "unigram_loss": 6.0, "learning_rate": 0.1, "seconds": 3.0, "cpu_load": 1.0}
    fixed |= {"sync_milliseconds": 0.5, "sync_bytes": 7, "gpu_bytes": 0}
    validation = {"valid_loss": 4.0, "valid_accuracy": 0.2, "perplexity": 54.6, "bits_per_byte": 2.0}
    steps = [
        {**fixed, "step": step, "loss": 10.0 - step, "gradient_norm": step, "resident_bytes": 100 - step}
        | {"step_milliseconds": 10.0 * step, "tokens_per_second": 100.0 * step}
        | (validation if step in (2, 3) else {})
        for step in (1, 2, 3, 4)
    ]
    first, second = evaluations(steps)
    assert (first["step"], first["batch_loss"], first["gradient_norm_mean"], first["gradient_norm_max"]) == (
        2,
        8.5,
        1.5,
        2,
    )
    assert (first["step_milliseconds_p50"], first["step_milliseconds_p95"], first["sync_bytes"]) == (10, 20, 14)
    assert first["tokens_per_second"] == pytest.approx((100 * 10 + 200 * 20) / 30)
    assert (first["peak_resident_bytes"], second["peak_resident_bytes"], second["step"]) == (99, 97, 3)


def test_percentiles_are_values_that_were_seen():
    values = [float(value) for value in range(1, 101)]
    assert [nearest_rank(values, share) for share in (0.5, 0.95, 1.0, 0.001)] == [50, 95, 100, 1]
    assert nearest_rank([3.0], 0.5) == 3


def test_progress_is_written_now_and_then(tmp_path):
    run = Lake(to_uri(str(tmp_path))).run("r")
    progress = Progress(run, "train", every_seconds=60)
    progress("one")
    progress("two")
    assert lake.read_json(run.progress("train"))["message"] == "one"
    assert local_path(run.progress("train")).parent.name == "progress"
