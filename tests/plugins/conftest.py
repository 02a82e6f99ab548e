"""Fixtures of the plugins' tests: the embedded EMR and S3, behind Airflow's connection."""

import uuid

import pytest

from tests.support import airflow


@pytest.fixture(scope="session")
def emr(tmp_path_factory):
    with airflow.emr_process(tmp_path_factory.mktemp("emr")) as running:
        yield running


@pytest.fixture
def aws(emr, monkeypatch):
    """Point Airflow's connection to the embedded EMR, and return a client of it."""
    airflow.connect(monkeypatch, emr.endpoint)
    return emr.client


@pytest.fixture(params=["file", "s3"])
def lake_uri(request, tmp_path):
    """The URI of an empty lake: in a folder whose name has a space and an accent, or in a bucket."""
    if request.param == "file":
        return (tmp_path / "my lake é").as_uri()
    request.getfixturevalue("aws")
    return f"s3://{airflow.BUCKET}/lake-{uuid.uuid4().hex[:8]}"
