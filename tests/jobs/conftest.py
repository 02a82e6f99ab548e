"""Fixtures of the job's tests: a real S3 server, a small model."""

import uuid

import boto3
import pytest
from moto.server import ThreadedMotoServer

from jobs.lake import store
from tests.support.models import untrained_model


@pytest.fixture(scope="session")
def s3_server():
    """A moto server on loopback; boto3 and pyarrow of this process and its children are pointed to it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    store.environment_client.cache_clear()
    yield f"http://127.0.0.1:{port}"
    patch.undo()
    server.stop()


@pytest.fixture
def s3_uri(s3_server):
    """A place in a bucket of its own."""
    bucket = f"lake-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some prefix"


@pytest.fixture(scope="session")
def model_and_tokenizer_untrained():
    """A small model with weights that make flat distributions, so that draws differ, and its tokenizer."""
    return untrained_model()
