"""A deployment made by the deploy command, with moto's CloudFormation in the embedded EMR's server."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from cfnlint.decode.cfn_yaml import loads
from moto.cloudformation.models import ChangeSet

from infra.aws import deploy
from infra.emr.server import embedded_emr
from infra.emr.settings import EmrSettings
from tests.infra.aws.recorder import Recorder
from tests.infra.aws.recorder import Request as Received

ENV = "prod"
CORPUS_BUCKET = "texts"


@dataclass(frozen=True)
class Deployment:
    """A deployed stack: its AWS endpoint, the printed lines, and the requests that AWS received."""

    endpoint: str
    printed: list[str]
    received: list[Received] = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that the command printed."""
        return dict(line.split("=", 1) for line in self.printed if line.startswith("NIGHTJAR_"))

    def policies(self, role: str) -> list[dict[str, Any]]:
        """Return the policy documents of one of the stack's roles, from IAM."""
        iam = boto3.client("iam", endpoint_url=self.endpoint)
        attached = iam.list_attached_role_policies(RoleName=f"nightjar-{ENV}-us-east-1-{role}")["AttachedPolicies"]
        arns = [policy["PolicyArn"] for policy in attached]
        versions = [(arn, iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]) for arn in arns]
        found = [iam.get_policy_version(PolicyArn=arn, VersionId=version) for arn, version in versions]
        return [each["PolicyVersion"]["Document"] for each in found]


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    """The template with its short forms (!Ref, !Sub) expanded."""
    parsed: dict[str, Any] = json.loads(json.dumps(loads(deploy.TEMPLATE.read_text("utf-8")), default=str))
    return parsed


@pytest.fixture(scope="module")
def deployment(template: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder, received = tmp_path_factory.mktemp("aws"), []  # type: tuple[Path, list[Received]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy, "TEMPLATE", _for_moto(template, folder))
        patch.setattr(deploy, "POLL_SECONDS", 0.1)
        patch.setattr(ChangeSet, "apply", _apply)
        with embedded_emr(EmrSettings(state_dir=folder / "emr"), lambda app: Recorder(app, received)) as endpoint:
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            ec2 = boto3.client("ec2")
            vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
            # moto would choose a zone at random, and us-east-1e has no current instance type.
            blocks = {"us-east-1a": "10.0.1.0/24", "us-east-1b": "10.0.2.0/24"}
            subnets = [
                ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]["SubnetId"]
                for zone, block in blocks.items()
            ]
            boto3.client("s3").create_bucket(Bucket=CORPUS_BUCKET)
            given = [f"VpcId={vpc}", f"SubnetIds={','.join(subnets)}", f"CorpusBucket={CORPUS_BUCKET}"]
            given.append("AirflowPrincipalArn=arn:aws:iam::123456789012:role/mwaa")
            printed = deploy.deploy(f"nightjar-{ENV}", ENV, given)
            patch.delenv("AWS_ENDPOINT_URL")
            received.clear()
            yield Deployment(endpoint, printed, received)
            # moto's state is the process's: the next module would change this stack instead of creating its own.
            urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()


def _for_moto(template: dict[str, Any], folder: Path) -> Path:
    """Write the template without the tags of the KMS key, which moto cannot read."""
    supported = copy.deepcopy(template)
    del supported["Resources"]["Key"]["Properties"]["Tags"]
    path = folder / "template.json"
    path.write_text(json.dumps(supported))
    return path


_moto_apply = ChangeSet.apply


def _apply(change_set: ChangeSet) -> None:
    """Apply a change set and add the stack's outputs, which moto leaves out."""
    _moto_apply(change_set)
    stack = change_set.stack
    stack.template = change_set.template
    stack._parse_template()
    stack.output_map = stack._create_output_map()
