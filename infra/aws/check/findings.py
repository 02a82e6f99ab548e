"""What a check found, and how a check that AWS refuses or does not answer becomes a finding too."""

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
    """One line of the command's output."""

    level: Level
    subject: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:8} {self.subject}: {self.text}"
        return f"{line}. {self.fix}" if self.fix else line


@dataclass(frozen=True)
class Deployment:
    """The deployment to check: what its settings say."""

    config: Config
    lake_uri: str
    airflow_arn: str | None
    """Role of Airflow, if it is to be checked."""
    region: str

    def client(self, service: str) -> Any:
        """Return a boto3 client. Any: only some of the services have stubs here."""
        return _client(service, self.region)


Check = Callable[[Deployment], Iterable[Finding]]


@cache
def _client(service: str, region: str) -> Any:
    return boto3.client(service, region_name=region)  # type: ignore[call-overload]  # by a name from a variable


def ok(subject: str, text: str) -> Finding:
    """Return the finding of something that is as it must be."""
    return Finding("ok", subject, text)


def problem(subject: str, text: str, fix: str) -> Finding:
    """Return the finding of something that would make a run fail, and what to do."""
    return Finding("problem", subject, text, fix)


def unknown(subject: str, text: str, fix: str = "") -> Finding:
    """Return the finding of something that could not be checked."""
    return Finding("unknown", subject, text, fix)


def run(check: Check, deployment: Deployment) -> Iterator[Finding]:
    """Yield the findings of a check. One that AWS does not let run is unknown, and the others go on."""
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        yield from check(deployment)
    except ClientError as error:
        said = error.response.get("Error", {})
        code = said.get("Code", "")
        action = f"{_prefix(error)}:{error.operation_name}"
        fix = f"Allow your own credentials {action}" if "Denied" in code or "Unauthorized" in code else ""
        yield unknown(name, f"{error.operation_name} answered {code} ({said.get('Message', '').splitlines()[0]})", fix)
    except BotoCoreError as error:
        yield unknown(name, str(error).splitlines()[0])


def _prefix(error: ClientError) -> str:
    services = {"ListReleaseLabels": "elasticmapreduce", "ListSupportedInstanceTypes": "elasticmapreduce"}
    services |= {"DescribeSecurityConfiguration": "elasticmapreduce", "SimulatePrincipalPolicy": "iam"}
    services |= {"GetRole": "iam", "GetInstanceProfile": "iam", "GetServiceQuota": "servicequotas"}
    services |= {"HeadBucket": "s3", "GetBucketEncryption": "s3", "DescribeKey": "kms", "GetCallerIdentity": "sts"}
    return services.get(error.operation_name, "ec2")
