"""Finds the AWS region of this process.

Without a region, requests to S3 go to us-east-1, which cannot be reached without internet access. boto3 reads
``AWS_DEFAULT_REGION`` but not ``AWS_REGION``. Other AWS libraries, such as the one in Arrow, read both.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_VENDOR = Path("/sys/class/dmi/id/sys_vendor")


def find_region() -> str | None:
    """Return the region from the environment, boto3's configuration or EC2's metadata. Return None if there is none."""
    named = next((value for name in VARIABLES if (value := os.environ.get(name))), None)
    return named or _configured() or _of_instance()


def _configured() -> str | None:
    import botocore.session  # noqa: PLC0415 - takes long to import, and Airflow parses DAGs often

    region: str | None = botocore.session.get_session().get_config_variable("region")
    return region


def _of_instance() -> str | None:
    """Return the region from the EC2 instance's metadata. Outside EC2, send no request: it would only time out."""
    from botocore.utils import InstanceMetadataRegionFetcher  # noqa: PLC0415

    try:
        is_ec2 = _VENDOR.read_text("utf-8").strip() == "Amazon EC2"
    except OSError:
        return None
    if not is_ec2:
        return None
    region: str | None = InstanceMetadataRegionFetcher(timeout=2, num_attempts=2).retrieve_region()
    return region
