"""A noun agrees with its number, and a wrong name has a hint."""

import pytest

from jobs.errors import counted, did_you_mean


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows"), (-1, "-1 rows")]
)
def test_a_noun_agrees_with_its_number(number, text):
    assert counted(number, "row") == text


def test_a_wrong_name_has_the_nearest_one_as_a_hint():
    assert did_you_mean("champoin", ["night-a", "champion"]) == "; did you mean champion?"
    assert did_you_mean("champoin", ["night-a"]) == ""
    assert did_you_mean("x", []) == ""
