"""Two cases of ``make chaos``."""

import pytest

from tests.chaos.harness import CHECKPOINT_EVERY, Case, Chaos

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    return Chaos(tmp_path_factory.mktemp("chaos"))


@pytest.mark.parametrize(
    "case", [Case("allreduce", "inline", "worker"), Case("diloco", "inline", "driver")], ids=lambda case: case.strategy
)
def test_a_killed_process_costs_at_most_one_checkpoint_interval(chaos, case):
    expected = chaos.expected(case)
    outcome = chaos.outcome(case)
    assert outcome.checkpoint_at_kill is not None
    assert outcome.samples == expected.samples
    if outcome.resumed_from is not None:
        assert outcome.checkpoint_at_kill <= outcome.resumed_from
    assert outcome.checkpoint_at_kill % CHECKPOINT_EVERY == 0
    if case.strategy == "allreduce":
        assert outcome.weights == expected.weights
    assert outcome.stats["valid_loss"] == pytest.approx(expected.stats["valid_loss"], rel=0.01)
