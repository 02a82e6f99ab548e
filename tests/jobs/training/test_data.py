"""The windows dataset of a training."""

import numpy as np
import pytest

from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.training.data import TrainingData
from tests.support.handmade import FINGERPRINT, TEXT, make_datasets, train_tokenizer


def test_windows_are_read_by_id_from_all_shards(tmp_path):
    place, tokenizer = Lake(tmp_path.as_uri()), train_tokenizer()
    make_datasets(place, tokenizer, size=16, shard_windows=7)
    windows = TrainingData.open(place, FINGERPRINT).train
    stream = tokenizer.encode(TEXT).astype(np.int64)
    ids = np.random.default_rng(0).permutation(windows.num_windows)
    assert len(windows.windows_per_shard) > 10
    expected = stream[ids[:, None] * 16 + np.arange(17)]
    assert np.array_equal(windows.read(ids), expected)


def test_a_missing_dataset_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no windows here; run the windows step first"):
        TrainingData.open(Lake(tmp_path.as_uri()), "none")
