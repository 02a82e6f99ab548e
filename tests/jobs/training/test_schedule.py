"""The learning-rate schedules, compared with their formulas."""

import numpy as np
import pytest

from jobs.config import TrainConfig
from jobs.training.schedule import Schedule

STEPS, EPOCHS = 100, 4
SHARES = np.arange(STEPS) / STEPS
DECAYS = {
    "constant": np.ones(STEPS),
    "exponential": 0.5 ** (EPOCHS * SHARES),
    "linear": 0.1 + 0.9 * (1 - SHARES),
    "cosine": 0.1 + 0.9 * (1 + np.cos(np.pi * SHARES)) / 2,
    "wsd": 0.1 + 0.9 * np.minimum(1, (1 - SHARES) / 0.25),
}


def schedule(name, **settings):
    shape = {"min_learning_rate_ratio": 0.1, "decay_fraction": 0.25, "decay_per_epoch": 0.5, "warmup_steps": 0}
    length = {"epochs": EPOCHS, "batch_size": 4}
    config = TrainConfig(schedule=name, learning_rate=2.0, **shape | length | settings)
    return Schedule.of(config, num_windows=STEPS, window_size=8)


@pytest.mark.parametrize("name", DECAYS)
def test_the_learning_rate_follows_its_formula(name):
    rates = [schedule(name).learning_rate(step, 0) for step in range(STEPS)]
    assert rates == pytest.approx(2 * DECAYS[name])


@pytest.mark.parametrize("name", DECAYS)
def test_the_decay_follows_the_seconds_when_they_end_the_run(name):
    timed = schedule(name, max_seconds=10.0)
    rates = [timed.learning_rate(0, 10 * share) for share in SHARES]
    assert rates == pytest.approx(2 * DECAYS[name])
    assert timed.learning_rate(80, 1.0) == schedule(name).learning_rate(80, 0)
    assert not timed.is_over(99, 9.9)
    assert timed.is_over(0, 10.0)


@pytest.mark.parametrize("name", DECAYS)
def test_the_warm_up_is_linear_and_at_most_a_tenth_of_the_steps(name):
    rates = np.array([schedule(name, warmup_steps=50).learning_rate(step, 0) for step in range(STEPS)])
    assert rates == pytest.approx(2 * DECAYS[name] * np.minimum(1, np.arange(1, STEPS + 1) / 11))


@pytest.mark.parametrize("name", DECAYS)
def test_the_warm_up_is_at_most_a_tenth_of_the_seconds(name):
    timed = schedule(name, warmup_steps=50, epochs=10_000, max_seconds=10.0, decay_per_epoch=1.0)
    decays = DECAYS | {"exponential": np.ones(STEPS)}
    rates = np.array([timed.learning_rate(step, 10 * step / STEPS) for step in range(STEPS)])
    warmup = np.maximum(np.arange(1, STEPS + 1) / 51, np.arange(STEPS) / 10)
    assert rates == pytest.approx(2 * decays[name] * np.minimum(1, warmup))


def test_max_tokens_can_end_a_run_before_its_epochs():
    assert schedule("linear", max_tokens=300).total_steps == 10
