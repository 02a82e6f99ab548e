"""AWS clients and the store of the lake, with the endpoint, credentials and region of the connection `aws_default`.

Without this connection, boto3 takes these values from the environment. Importing the hooks of Airflow's Amazon provider
takes a second. So each function imports its hook only when the function is called, and parsing a DAG stays fast.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jobs.lake.store import Store

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient
    from mypy_boto3_s3 import S3Client

CONN_ID = "aws_default"

# AWS throttles RunJobFlow and DescribeStep early; boto3's few quick retries are not enough for a busy account.
_EMR_CONFIG = {"retries": {"mode": "standard", "total_max_attempts": 10}}


def store() -> Store:
    """Return the store of the lake. The store creates this process's S3 client when it first uses S3."""
    return Store(s3_client)


@cache
def s3_client() -> S3Client:
    """Return the S3 client of this process, for tasks. Creating a client takes 0.3 s of CPU time."""
    return connect_s3()


def connect_s3() -> S3Client:
    """Return a new S3 client. Each trigger needs its own, since the connection may change while the triggerer runs."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415 - slow to import

    client: S3Client = S3Hook(aws_conn_id=CONN_ID).conn
    return client


@cache
def emr_client() -> EMRClient:
    """Return the EMR client of this process, for tasks. Creating a client takes 0.3 s of CPU time."""
    client: EMRClient = _emr_hook().conn
    return client


async def async_emr_client() -> Any:
    """Return a context manager that opens an aiobotocore client of EMR."""
    return await _emr_hook().get_async_conn()


def is_on_aws(endpoint_url: str) -> bool:
    """Return whether an endpoint belongs to EMR on AWS. Any other endpoint is the embedded EMR, which costs nothing."""
    return "amazonaws.com" in endpoint_url


def _emr_hook() -> Any:
    from airflow.providers.amazon.aws.hooks.emr import EmrHook  # noqa: PLC0415 - slow to import

    return EmrHook(aws_conn_id=CONN_ID, config=_EMR_CONFIG)
