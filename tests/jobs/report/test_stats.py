"""Statistics as files."""

import csv
import io

from jobs import lake
from jobs.paths import Lake, join, local_path, to_uri
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


def test_csv_has_one_header_and_no_missing_column():
    assert to_csv([{"a": 1, "b": "x,y"}, {"a": 2, "c": 3}]) == b'a,b,c\n1,"x,y",\n2,,3\n'


def test_progress_is_written_now_and_then(tmp_path):
    run = Lake(to_uri(str(tmp_path))).run("r")
    progress = Progress(run, "train", every_seconds=60)
    progress("one")
    progress("two")
    assert lake.read_json(run.progress("train"))["message"] == "one"
    assert local_path(run.progress("train")).parent.name == "progress"
