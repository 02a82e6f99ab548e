"""A noun agrees with its number."""

import pytest

from jobs.words import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows"), (-1, "-1 rows")]
)
def test_a_noun_agrees_with_its_number(number, text):
    assert counted(number, "row") == text
