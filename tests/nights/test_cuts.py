"""Operations that die between any two of their writes."""

import pytest

from tests.nights import cuts

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("prepare", cuts.OPERATIONS, ids=lambda prepare: prepare.__name__)
def test_an_operation_that_dies_anywhere_leaves_what_can_be_read_and_is_done_again(prepare, tmp_path):
    _, changes = cuts.count_cuts(prepare, tmp_path)
    assert changes > 3
