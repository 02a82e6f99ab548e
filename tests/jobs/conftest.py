"""Fixtures of the job's tests: a real S3 server, a small model."""

import uuid

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer

from jobs.lake import store
from jobs.model.llama import Llama, LlamaConfig
from tests.support.handmade import train_tokenizer


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
    tokenizer = train_tokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, num_positions=16, num_layers=2, embedding_size=32, hidden_size=64,
        num_heads=2, num_kv_heads=1, rope_theta=10_000.0, norm_epsilon=1e-5,
    )  # fmt: skip
    model = Llama(config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model, tokenizer
