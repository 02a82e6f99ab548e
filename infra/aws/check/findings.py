"""The findings of checks. If AWS refuses or does not answer a check's request, a finding says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from jobs.config import Config
from jobs.errors import shorten

_ACTIONS = {
    "DescribeKey": "kms:DescribeKey",
    "DescribeSecurityConfiguration": "elasticmapreduce:DescribeSecurityConfiguration",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetBucketLocation": "s3:GetBucketLocation",
    "GetCallerIdentity": "sts:GetCallerIdentity",
    "GetInstanceProfile": "iam:GetInstanceProfile",
    "GetRole": "iam:GetRole",
    "GetServiceQuota": "servicequotas:GetServiceQuota",
    "HeadObject": "s3:GetObject",
    "ListAttachedRolePolicies": "iam:ListAttachedRolePolicies",
    "ListReleaseLabels": "elasticmapreduce:ListReleaseLabels",
    "ListSupportedInstanceTypes": "elasticmapreduce:ListSupportedInstanceTypes",
    "SimulatePrincipalPolicy": "iam:SimulatePrincipalPolicy",
}
"""The IAM actions of the checks' requests, except those to EC2. An action of EC2 has the name of its request."""

Level = Literal["ok", "problem", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The result of a check: one line of the output of ``nightjar aws-check``."""

    level: Level
    subject: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:8} {self.subject}: {self.text}"
        return f"{line}. {self.fix}" if self.fix else line


@dataclass(frozen=True)
class Deployment:
    """The settings of the deployment to check."""

    config: Config
    lake_uri: str
    airflow_arn: str | None
    """ARN of Airflow's role. None: the role is not checked."""
    region: str

    def client(self, service: str) -> Any:
        """Return a boto3 client. Its type is Any, because type stubs are installed for some services only."""
        return _client(service, self.region)


Check = Callable[[Deployment], Iterable[Finding]]


@cache
def _client(service: str, region: str) -> Any:
    return boto3.client(service, region_name=region)  # type: ignore[call-overload]  # by a name from a variable


def ok(subject: str, text: str) -> Finding:
    """Return a finding for something that is as it must be."""
    return Finding("ok", subject, text)


def problem(subject: str, text: str, fix: str) -> Finding:
    """Return a finding for something that would make a run fail. `fix` says what to do."""
    return Finding("problem", subject, text, fix)


def unknown(subject: str, text: str, fix: str = "") -> Finding:
    """Return a finding for something that could not be checked."""
    return Finding("unknown", subject, text, fix)


def run(check: Check, deployment: Deployment) -> Iterator[Finding]:
    """Yield the findings of a check. If AWS refuses a request of the check, yield a finding of level ``unknown``."""
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        yield from check(deployment)
    except ClientError as error:
        request, said = error.operation_name, error.response.get("Error", {})
        code = said.get("Code", "")
        action = _ACTIONS.get(request, f"ec2:{request}")
        fix = f"Give your own credentials the permission {action}" if "Denied" in code or "Unauthorized" in code else ""
        yield unknown(name, f"{request} answered {code} ({shorten(said.get('Message', '') or 'no message')})", fix)
    except BotoCoreError as error:
        yield unknown(name, shorten(str(error)))
