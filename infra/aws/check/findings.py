"""The findings of checks. If AWS refuses or does not answer a check's request, a finding says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from jobs.config import Config

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
        said = error.response.get("Error", {})
        code = said.get("Code", "")
        action = f"{_prefix(error)}:{error.operation_name}"
        fix = f"Give your own credentials the permission {action}" if "Denied" in code or "Unauthorized" in code else ""
        yield unknown(name, f"{error.operation_name} answered {code} ({said.get('Message', '').splitlines()[0]})", fix)
    except BotoCoreError as error:
        yield unknown(name, str(error).splitlines()[0])


def _prefix(error: ClientError) -> str:
    services = {"ListReleaseLabels": "elasticmapreduce", "ListSupportedInstanceTypes": "elasticmapreduce"}
    services |= {"DescribeSecurityConfiguration": "elasticmapreduce", "SimulatePrincipalPolicy": "iam"}
    services |= {"GetRole": "iam", "GetInstanceProfile": "iam", "GetServiceQuota": "servicequotas"}
    services |= {"HeadBucket": "s3", "GetBucketEncryption": "s3", "DescribeKey": "kms", "GetCallerIdentity": "sts"}
    return services.get(error.operation_name, "ec2")
