import os

import pytest

from jobs.lake.layout import Lake
from jobs.lake.uri import to_uri
from tests.support.handmade import make_datasets, train_tokenizer


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


@pytest.fixture(params=["file", "s3"])
def anywhere(request, tmp_path, s3_uri, monkeypatch):
    """The URI of an empty lake, on a local disk and on S3; files that are read from S3 are kept below `tmp_path`."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my läke"))


@pytest.fixture
def local(tmp_path):
    """The URI of an empty lake on a local disk."""
    return to_uri(str(tmp_path / "local"))
