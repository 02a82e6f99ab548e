"""A training job, its windows dataset, and the settings with which a run may resume."""

from dataclasses import replace

import numpy as np
import pytest

from jobs.config import TrainConfig
from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.training.job import CHANGEABLE_SETTINGS, TrainingData, TrainingJob, TrainingResult
from tests.support.handmade import FINGERPRINT, TEXT, make_datasets, make_run, train_tokenizer


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


def test_windows_are_read_by_id_from_all_shards(place):
    tokenizer = train_tokenizer()
    make_datasets(place, tokenizer, size=16, shard_windows=7)
    windows = TrainingData.open(place, FINGERPRINT).train
    stream = tokenizer.encode(TEXT).astype(np.int64)
    ids = np.random.default_rng(0).permutation(windows.num_windows)
    assert len(windows.windows_per_shard) > 10
    expected = stream[ids[:, None] * 16 + np.arange(17)]
    assert np.array_equal(windows.read(ids), expected)


def test_a_missing_dataset_is_an_input_error(place):
    with pytest.raises(InputError, match="no windows here; run the windows step first"):
        TrainingData.open(place, "none")
