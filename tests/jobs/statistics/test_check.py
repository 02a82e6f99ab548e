"""The checker of metrics finds each kind of defect."""

import csv
from functools import partial

import pytest

from jobs.cli.main import main
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.statistics.check import check_file, find_defects

HEADER = "step,epoch,train_loss,valid_loss,unigram_loss,train_accuracy,valid_accuracy,learning_rate,seconds"
ROWS = [
    "100,0.5,4.9,5.0,6.47,0.15,0.14,0.003,10.5",
    "200,1.0,4.4,4.6,6.47,0.19,0.18,0.002,20.5",
    "300,1.5,4.1,4.5,6.47,0.21,0.19,0.001,30.5",
]


def csv_of(*rows, header=HEADER):
    return "\n".join([header, *rows]) + "\n"


def with_column(name, *values):
    """Return a correct file with other values in one column."""
    place = HEADER.split(",").index(name)
    rows = [row.split(",") for row in ROWS]
    for row, value in zip(rows, values, strict=True):
        row[place] = value
    return csv_of(*map(",".join, rows))


def test_a_correct_file_has_no_defect():
    assert find_defects(csv_of(*ROWS)) == []
    assert find_defects(csv_of(*ROWS).replace("\n", "\r\n")) == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        pytest.param("", "line 1: the file is empty", id="empty"),
        pytest.param(csv_of(), "line 2: no row", id="header alone"),
        pytest.param(
            csv_of(*ROWS, header=HEADER.replace("train_acc", "valid_acc")),
            "'valid_accuracy' occurs more than once",
            id="twice",
        ),
        pytest.param(csv_of(ROWS[0], HEADER, *ROWS[1:]), "line 3: the header is repeated", id="header again"),
        pytest.param(
            csv_of(*(f"{row},12" for row in ROWS)), "lines 2, 3, 4: 10 fields, but the header has 9", id="more fields"
        ),
        pytest.param(
            csv_of(ROWS[0], ROWS[1][:20], ROWS[2]), "line 3: 5 fields, but the header has 9", id="fewer fields"
        ),
        pytest.param(with_column("seconds", "1", "", "3"), "line 3: 'seconds' is missing", id="missing"),
        pytest.param(with_column("seconds", "1", "2 s", "3"), "line 3: 'seconds' is not a finite number", id="text"),
        pytest.param(with_column("train_loss", "1", "nan", "3"), "line 3: 'train_loss' is not a finite", id="nan"),
        pytest.param(with_column("learning_rate", *["0.002952"] * 3), "'learning_rate' is 0.002952 in all", id="rate"),
        pytest.param(with_column("valid_accuracy", *["0.0"] * 3), "'valid_accuracy' is 0 in all 3 rows", id="accuracy"),
        pytest.param(with_column("train_loss", *["5.5"] * 3), "'train_loss' is 5.5 in all 3 rows", id="loss"),
        pytest.param(with_column("step", "100", "300", "200"), "'step' is 200 in row 3, after 300", id="steps"),
        pytest.param(with_column("step", "100", "200", "200"), "'step' is 200 in row 3, after 200", id="same step"),
        pytest.param(with_column("epoch", "2", "1", "2"), "'epoch' is 1 in row 2, after 2", id="epochs"),
        pytest.param(
            with_column("valid_loss", "4.9", "4.4", "4.1"), "'valid_loss' equals 'train_loss' in all 3", id="trained on"
        ),
        pytest.param(
            with_column("valid_accuracy", "0.15", "0.19", "0.21"), "'valid_accuracy' equals 'train_accuracy'", id="same"
        ),
        pytest.param(
            with_column("valid_loss", "7", "6.6", "6.47"),
            "'valid_loss' is never below 'unigram_loss' (6.47)",
            id="unigram",
        ),
    ],
)
def test_each_defect_is_reported_once(text, finding):
    (found,) = find_defects(text)
    assert finding in found


def test_files_of_another_pipeline():
    """Such files had commas in unquoted fields, the last learning rate in all rows, and one header for each run."""
    header = "Epoch,LearningRate,Loss,Accuracy,MemoryMB"
    rows = [f"{epoch},0.002952,5.{60 - epoch},0.0,executor 1: 512,executor 2: 498" for epoch in (1, 2, 3)]
    found = find_defects("\n".join([header, *rows, header, *rows]))
    assert found == ["lines 2, 3, 4, 6, 7 and 1 more: 6 fields, but the header has 5", "line 5: the header is repeated"]
    rows = [f"{epoch},0.002952,5.{60 - epoch},0.0,512" for epoch in (1, 2, 3)]
    assert [line.split(" in ")[0] for line in find_defects("\n".join([header, *rows]))] == [
        "'LearningRate' is 0.002952",
        "'Accuracy' is 0",
    ]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_constant_learning_rate_is_correct_for_a_constant_schedule(tmp_path, schedule):
    run = Lake(tmp_path.as_uri()).run("r")
    uri = join(run.stats, "metrics.csv")
    store.write_bytes(uri, with_column("learning_rate", *["0.1"] * 3).encode())
    assert len(check_file(uri)) == 1
    store.write_json(run.config, {"train": {"schedule": schedule}})
    assert len(check_file(uri)) == (schedule != "constant")


def test_the_command(tmp_path, capsys):
    path = tmp_path / "my metrics.csv"
    path.write_text(csv_of(*ROWS))
    assert main(["check-metrics", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: no defects found\n"
    path.write_text(csv_of(ROWS[0], HEADER))
    assert main(["check-metrics", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{path}: line 3: the header is repeated\n"
    assert captured.err.splitlines()[-1] == f"nightjar: {path}: 1 defect found"


def test_a_field_that_is_too_long_is_a_defect_of_its_line(tmp_path, capsys, request):
    request.addfinalizer(partial(csv.field_size_limit, csv.field_size_limit(131_072)))  # files of vectors raise it
    path = tmp_path / "metrics.csv"
    for field in ("9" * 131_073, '"' + "9\n" * 70_000):
        path.write_text(csv_of(*ROWS[:2], f"{field},1"))
        assert main(["check-metrics", str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.out.startswith(f"{path}: line 4: not CSV (field larger than field limit (131072)); look for")
        assert captured.out.count("\n") == 1
        assert captured.err.splitlines()[-1] == f"nightjar: {path}: 1 defect found"


def test_files_that_are_missing_or_not_text_are_rejected(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        check_file((tmp_path / "none.csv").as_uri())
    (tmp_path / "a.csv").write_bytes(b"loss\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8 at byte 5"):
        check_file((tmp_path / "a.csv").as_uri())
