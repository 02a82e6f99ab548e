"""Numbers with units, durations, and curves as text."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.results.svg import Bars, Curves, Line
from jobs.results.text import duration, moment, one_line, sparkline, with_unit


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0 B"), (1023, "bytes", "1,023 B"), (5_057_198, "bytes", "4.82 MiB"), (3 << 40, "bytes", "3 TiB"),
        (0.0123, "share", "1.23%"), (0.5, "share", "50.0%"), (59.94, "s", "59.9 s"), (125, "s", "2:05 min"),
        (7650, "s", "2:07:30 h"), (4.36, "nats per token", "4.36 nats per token"), (None, "bytes", "-"), ("a", "", "a"),
        (True, "", "yes"), (1_377_408, "parameters", "1,377,408 parameters"), (math.nan, "s", "nan"),
        (10**400, "share", f"{10**400:,}"), (-math.inf, "bytes", "-inf"),
    ],
)  # fmt: skip
def test_values_have_units(value, unit, text):
    assert with_unit(value, unit) == text


def test_a_curve_in_one_line():
    assert sparkline([3, 2, 1]) == "█▅▁"
    assert sparkline(list(range(80)), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, math.nan, 1]) == "▁▁"
    assert sparkline([1.7e308, 1.7e308, -1.7e308, -1.7e308], 2) == "█▁"
    assert sparkline([]) == sparkline([math.inf]) == ""


@given(st.lists(st.floats(), max_size=100), st.integers(1, 50))
def test_a_curve_has_at_most_its_width(values, width):
    finite = [value for value in values if math.isfinite(value)]
    assert len(sparkline(values, width)) == min(width, len(finite))


def test_times_and_lines():
    assert moment(0) == "1970-01-01 00:00 UTC"
    assert moment(None) == moment(math.nan) == moment(1e300) == "-"
    assert duration(3599.6) == "1:00:00 h"
    assert one_line("a\n\x1b[31m b", 10) == "a [31m b"
    assert one_line("abcdef", 4) == "abc…"


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats()), min_size=1, max_size=50),
    st.sampled_from(["", "bytes", "share"]),
    st.booleans(),
)
@example(points=[(0, 2.2250738585e-313)], unit="", from_zero=True)
@example(points=[(0, 1.1e-290), (1, 1.1000001e-290)], unit="share", from_zero=False)
def test_any_numbers_make_a_plot(points, unit, from_zero):
    points = tuple((float(x), y) for x, y in points)
    svg = Curves("n", "t", unit, (Line("a", points),), from_zero=from_zero).to_svg()
    drawn = svg.replace("<title>", "\0").split("\0")[0]
    assert "nan" not in drawn
    assert "inf" not in drawn
    Bars("n", "t", unit, ("a",), tuple(("label", (y,)) for _, y in points)).to_svg()
