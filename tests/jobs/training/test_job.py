"""A training job, and the settings with which a run may resume."""

from dataclasses import replace

import pytest

from jobs.config import TrainConfig
from jobs.lake.layout import Lake
from jobs.training.job import CHANGEABLE_SETTINGS, TrainingJob, TrainingResult
from tests.support.handmade import make_run


@pytest.fixture
def place(tmp_path):
    return Lake(tmp_path.as_uri())


def job_with(place, **settings):
    return TrainingJob(*make_run(place, **settings), "0" * 64)


def test_settings_of_an_earlier_version_still_have_the_same_hash(place):
    """Checkpoints hold this hash. If it changes, no run that an earlier version began can resume."""
    assert job_with(place).settings_hash() == "3cb74bda3add43c83f448bae5640a0a6ea315ed7807f49afb16e51a671163172"


def test_settings_that_decide_the_weights_change_the_hash(place):
    job = job_with(place)
    others = [job_with(place, train__seed=99), job_with(place, model__num_layers=1), replace(job, windows="1" * 64)]
    assert len({each.settings_hash() for each in [job, *others]}) == 4


def test_settings_that_may_change_do_not_change_the_hash(place):
    assert TrainConfig.model_fields.keys() >= CHANGEABLE_SETTINGS
    assert job_with(place, train__workers=2).settings_hash() == job_with(place).settings_hash()


def test_the_result_is_part_of_the_statistics():
    result = TrainingResult(True, 10, "float32", "cpu", 20, False, None, None, restarts=1, workers=2)
    stats = result.to_stats()
    assert stats.keys() >= {"num_parameters", "dtype", "device", "restarts", "rollbacks", "workers", "best_step"}
    assert "is_complete" not in stats
