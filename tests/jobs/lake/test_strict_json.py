"""Numbers that are not finite never become broken JSON."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.config import resolve
from jobs.engine.inline import InlineEngine
from jobs.errors import NightjarError
from jobs.lake import store
from jobs.lake.champion import format_champion
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.strict_json import NotFiniteError, finite, not_finite, to_json, to_jsonl
from jobs.pipeline import run_step
from jobs.results.rows import read_parts
from jobs.statistics.writer import read_steps

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def strict(text):
    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


@given(VALUES)
def test_what_is_made_finite_is_json(value):
    assert strict(to_json(finite(value), "x")) == finite(value)
    assert list(not_finite(finite(value))) == []
    if list(not_finite(value)):
        with pytest.raises(NotFiniteError):
            to_json(value, "x")
    else:
        assert finite(value) == value


def test_the_error_names_the_value_and_the_key():
    with pytest.raises(NotFiniteError, match=r"^here: a\.b\[1\] is nan, c is inf; JSON has no such number") as caught:
        to_json({"a": {"b": [0, math.nan]}, "c": math.inf}, "here")
    assert isinstance(caught.value, NightjarError)


def test_manifests_and_champions_refuse_such_numbers():
    with pytest.raises(NotFiniteError, match=r"^manifest of train abc: counts\.loss is nan"):
        Manifest("train", "abc", (), {"loss": math.nan}).to_json()
    with pytest.raises(NotFiniteError, match=r"^champion abc: metrics\.valid_loss is -inf"):
        format_champion("abc", "r", {"valid_loss": -math.inf})


def test_rows_of_metrics_come_back(tmp_path):
    run = Lake(tmp_path.as_uri()).run("r")
    content = to_jsonl([{"step": 1, "loss": math.nan}])
    assert strict(content) == {"step": 1, "loss": None}
    store.write_bytes(f"{run.metrics_parts}/part-0000-a-000000.jsonl", content)
    (row,) = read_parts(run)
    assert row["step"] == 1
    assert math.isnan(row["loss"])


def test_statistics_become_null_with_one_line(tmp_path, caplog, monkeypatch):
    from jobs.steps import tokenize

    run = Lake(tmp_path.as_uri()).run("r")
    values = {"num_tokens": 3, "bytes_per_token": math.nan, "rows": [math.inf]}
    monkeypatch.setattr(tokenize, "run", lambda *_: values)
    run_step("tokenize", run, resolve("file:///text", "tiny"), InlineEngine(), is_checked=True)
    stats = strict(store.read_bytes(run.step_stats("tokenize")))
    assert (stats["num_tokens"], stats["bytes_per_token"], stats["rows"]) == (3, None, [None])
    assert strict(store.read_bytes(f"{run.stats}/stats.json"))["steps"]["tokenize"]["bytes_per_token"] is None
    lines = [record.getMessage() for record in caplog.records if "is nan" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].endswith("bytes_per_token is nan, rows[0] is inf; written as null")


def test_statistics_of_an_earlier_version_are_read(tmp_path):
    run = Lake(tmp_path.as_uri()).run("r")
    store.write_bytes(run.step_stats("train"), b'{"valid_loss": NaN, "loss": -Infinity, "step": 3}')
    assert read_steps(run)["train"] == {"valid_loss": None, "loss": None, "step": 3}
