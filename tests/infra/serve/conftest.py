"""Models on disk, and a service that most tests share."""

import httpx
import openai
import pytest

from jobs.model_io.folder import save_model
from tests.support.models import untrained_model
from tests.support.serving import serving
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """A folder with a model that never ends a text."""
    folder = tmp_path_factory.mktemp("endless")
    save_model(folder.as_uri(), *untrained_model(is_endless=True))
    return folder


@pytest.fixture(scope="package")
def service(endless, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("service"), "--model", str(endless), "--max-tokens", "100000") as running:
        yield running


@pytest.fixture(scope="package")
def client(service):
    with client_of(service) as client:
        yield client


@pytest.fixture(scope="package")
def http(service):
    with httpx.Client(base_url=service.url, timeout=PATIENCE_SECONDS) as client:
        yield client


def client_of(service, **options):
    """Return OpenAI's client as it comes, but for tries that it would make again."""
    return openai.OpenAI(**{"base_url": service.url, "api_key": "unused", "max_retries": 0, **options})
