"""The two kinds of lakes: a folder with a name that is hard to handle, and a bucket of a real moto server."""

import tempfile

import pytest

from jobs.lake.uri import to_uri


@pytest.fixture(params=["file", "s3"])
def lake_uri(request, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # so that no test finds the cached files of another
    return request.getfixturevalue("s3_uri") if request.param == "s3" else to_uri(str(tmp_path / "my läke"))
