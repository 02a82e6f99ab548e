"""Clients of AWS from Airflow's connection `aws_default`: endpoint, credentials and region are the connection's.

Without the connection they are what boto3 finds in its usual places. The provider's hooks take a second to import, so
they are imported when a task needs them, never when a DAG is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient
    from mypy_boto3_s3 import S3Client

CONN_ID = "aws_default"

# RunJobFlow and DescribeStep are throttled early; boto3's few quick retries are not enough for a busy account.
_EMR_CONFIG = {"retries": {"mode": "standard", "total_max_attempts": 10}}


def s3_client() -> S3Client:
    """A boto3 client of S3."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415 - too slow for a DAG's parsing

    client: S3Client = S3Hook(aws_conn_id=CONN_ID).conn
    return client


def emr_client() -> EMRClient:
    """A boto3 client of EMR."""
    client: EMRClient = _emr_hook().conn
    return client


async def async_emr_client() -> Any:
    """A context manager that gives an aiobotocore client of EMR."""
    return await _emr_hook().get_async_conn()


def _emr_hook() -> Any:
    from airflow.providers.amazon.aws.hooks.emr import EmrHook  # noqa: PLC0415 - too slow for a DAG's parsing

    return EmrHook(aws_conn_id=CONN_ID, config=_EMR_CONFIG)
