"""Fixtures of the tests of tasks: files in a lake, and an EMR that nothing asks."""

import boto3
import pytest

from jobs.lake.uri import join
from nightjar.aws import store
from nightjar.tasks import preflight


@pytest.fixture
def put(lake_uri):
    """Write a file of the lake, and return its place."""

    def write(name, data):
        store().write_bytes(join(lake_uri, name), data)
        return join(lake_uri, name)

    return write


@pytest.fixture
def emr_at_home(monkeypatch):
    """An EMR that is not on AWS, and that no check asks."""
    monkeypatch.setattr(
        preflight.aws, "emr_client", lambda: boto3.client("emr", "us-east-1", endpoint_url="http://localhost:1")
    )
