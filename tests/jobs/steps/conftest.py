import os

import pytest

from jobs.paths import Lake
from tests.jobs.handmade import make_datasets, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer()


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    """A lake with a small dataset of windows; workers take one thread each."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    place = Lake((tmp_path / "a lake").as_uri())
    make_datasets(place, tokenizer)
    return place
