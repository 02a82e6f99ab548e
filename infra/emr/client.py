"""Clients for an embedded EMR, and the store through which the server itself reads and writes files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from jobs.lake.store import Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""Credentials for boto3, which does not work without credentials. The server does not check them."""

STEP_AGENT = "nightjar-step"
"""The value of AWS_EXECUTION_ENV for steps. AWS SDKs add it to the User-Agent, so the server recognizes steps."""
CLUSTER_AGENT = "nightjar-emr-cluster"
"""The word in the User-Agent by which the server recognizes calls that it makes itself."""


def connect(service: str, endpoint_url: str, agent: str = "") -> Any:
    """Return a boto3 client for one service of the server, such as ``emr``.

    The client's User-Agent contains the word `agent`.
    """
    return boto3.client(
        service,  # type: ignore[call-overload] # the stubs have one overload for each service
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(user_agent_extra=agent or None),
    )


def open_store(endpoint_url: str) -> Store:
    """Return the store with which the server accesses its S3 and local files. The store never retries."""
    client: S3Client = connect("s3", endpoint_url, CLUSTER_AGENT)
    return Store(lambda: client, retry_seconds=0)
