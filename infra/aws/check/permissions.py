"""Checks of credentials, bucket, key and certificates, and of the permissions of roles.

Permissions are checked by `iam:SimulatePrincipalPolicy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from infra.aws import certificates
from infra.aws.check.findings import Deployment, Finding, ok, problem
from jobs.errors import InputError
from jobs.lake.uri import bucket_and_key, is_s3
from nightjar import settings


class Call(NamedTuple):
    """An action on a resource. A role must be allowed to do it. If `is_allowed` is False, the role must be denied it.

    `context` has the values of IAM's condition keys.
    """

    action: str
    resource: str
    context: Mapping[str, str] = {}
    is_allowed: bool = True


def check_credentials(deployment: Deployment) -> Iterator[Finding]:
    """Check that there are credentials and a region."""
    who = deployment.client("sts").get_caller_identity()
    yield ok("credentials", f"{who['Arn']} in {deployment.region}")


def check_bucket(deployment: Deployment) -> Iterator[Finding]:
    """Check that the lake's bucket exists in the region of the clusters and is encrypted with a key that is enabled."""
    if not is_s3(deployment.lake_uri):
        yield problem(
            "bucket", f"{deployment.lake_uri} is not a place in S3", "Set NIGHTJAR_LAKE to s3://bucket/prefix"
        )
        return
    client, (bucket, _) = deployment.client("s3"), bucket_and_key(deployment.lake_uri)
    place = client.get_bucket_location(Bucket=bucket).get("LocationConstraint") or "us-east-1"
    if place != deployment.region:
        yield problem(
            "bucket", f"{bucket} is in {place}, but clusters run in {deployment.region}", "Deploy in one region"
        )
    else:
        yield ok("bucket", f"{bucket} in {place}")
    rules = client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    key = rules[0]["ApplyServerSideEncryptionByDefault"].get("KMSMasterKeyID")
    if key is None:
        yield problem("key", f"{bucket} is not encrypted with a key of your own", "Run make aws-deploy")
        return
    state = deployment.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
    if state != "Enabled":
        yield problem(
            "key", f"{key} is {state}, so nothing in the lake can be read", "Enable the key, or cancel its deletion"
        )
    else:
        yield ok("key", f"{key} is enabled")


def check_security_configuration(deployment: Deployment) -> Iterator[Finding]:
    """Check that the security configuration exists, and that the certificates it refers to are in the lake's bucket."""
    name = deployment.config.cluster.security_configuration
    if name is None:
        yield problem(
            "encryption", "cluster.security_configuration is not set", "Set the variables that aws-deploy printed"
        )
        return
    text = deployment.client("emr").describe_security_configuration(Name=name)["SecurityConfiguration"]
    yield ok("encryption", name)
    if certificates.NAME in text:
        bucket, _ = bucket_and_key(deployment.lake_uri)
        deployment.client("s3").head_object(Bucket=bucket, Key=certificates.NAME)
        yield ok("encryption", f"the nodes' certificates are in s3://{bucket}/{certificates.NAME}")


def check_service_role(deployment: Deployment) -> Iterator[Finding]:
    """Check that EMR's service role has the policy AmazonEMRServicePolicy_v2, and may pass the nodes' role to EC2."""
    node = _node_role(deployment)
    calls = [Call("iam:PassRole", node, {"iam:PassedToService": "ec2.amazonaws.com"})]
    name = deployment.config.cluster.service_role.rpartition("/")[2]
    attached = deployment.client("iam").list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    if not any(policy["PolicyName"] == "AmazonEMRServicePolicy_v2" for policy in attached):
        yield problem("service role", f"{name} lacks AmazonEMRServicePolicy_v2", "Run make aws-deploy")
    yield from _simulate(deployment, "service role", _role_arn(deployment, name), calls)


def check_node_role(deployment: Deployment) -> Iterator[Finding]:
    """Check that the nodes' role may read and write the lake, and that it may not change models."""
    bucket, prefix = bucket_and_key(deployment.lake_uri)
    objects = f"arn:{_partition(deployment)}:s3:::{bucket}"
    lake = f"{objects}/{prefix}".rstrip("/")
    calls = [
        Call("s3:ListBucket", objects),
        Call("s3:GetObject", f"{lake}/packages/x/jobs.zip"),
        Call("s3:PutObject", f"{lake}/datasets/tokens/x"),
        Call("s3:PutObject", f"{lake}/runs/x/config.json"),
        Call("s3:PutObject", f"{lake}/logs/j-1/x"),
        Call("s3:PutObject", f"{lake}/models/x/model.safetensors", is_allowed=False),
    ]
    yield from _simulate(deployment, "node role", _node_role(deployment), calls)


def check_airflow_role(deployment: Deployment) -> Iterator[Finding]:
    """Check that Airflow's role may start and use its project's clusters, and that it may not tag any other cluster."""
    if deployment.airflow_arn is None:
        return
    project, partition = settings.load().project, _partition(deployment)
    account = deployment.airflow_arn.split(":")[4]
    cluster = f"arn:{partition}:elasticmapreduce:{deployment.region}:{account}:cluster/j-1"
    bucket, prefix = bucket_and_key(deployment.lake_uri)
    lake = f"arn:{partition}:s3:::{bucket}/{prefix}".rstrip("/")
    new, own = {"aws:RequestTag/nightjar:project": project}, {"aws:ResourceTag/nightjar:project": project}
    service = _role_arn(deployment, deployment.config.cluster.service_role.rpartition("/")[2])
    calls = [
        Call("elasticmapreduce:RunJobFlow", "*", new),
        Call("elasticmapreduce:PutAutoTerminationPolicy", cluster),
        Call("elasticmapreduce:ListInstances", cluster, own),
        Call("elasticmapreduce:AddJobFlowSteps", cluster, own),
        Call("elasticmapreduce:TerminateJobFlows", cluster, own),
        Call("elasticmapreduce:AddTags", cluster, new, is_allowed=False),
        Call("iam:PassRole", service, {"iam:PassedToService": "elasticmapreduce.amazonaws.com"}),
        Call("iam:PassRole", _node_role(deployment), {"iam:PassedToService": "ec2.amazonaws.com"}),
        Call("s3:PutObject", f"{lake}/packages/x/jobs.zip"),
        Call("s3:PutObject", f"{lake}/runs/x/config.json"),
    ]
    yield from _simulate(deployment, "Airflow's role", deployment.airflow_arn, calls)


def _simulate(deployment: Deployment, subject: str, arn: str, calls: list[Call]) -> Iterator[Finding]:
    """Yield a problem for each call that IAM wrongly denies or allows to the role `arn`.

    If there is no such call, yield one finding ``ok``.
    """
    client, wrong = deployment.client("iam"), 0
    for call in calls:
        context = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in call.context.items()
        ]
        answer = client.simulate_principal_policy(
            PolicySourceArn=arn, ActionNames=[call.action], ResourceArns=[call.resource], ContextEntries=context
        )
        is_allowed = answer["EvaluationResults"][0]["EvalDecision"] == "allowed"
        if is_allowed != call.is_allowed:
            wrong += 1
            must = "must be allowed" if call.is_allowed else "must not be allowed"
            yield problem(
                subject,
                f"{arn.rpartition('/')[2]} {must} {call.action} on {call.resource}"
                + (f" with {', '.join(f'{key}={value}' for key, value in call.context.items())}" if context else ""),
                "Run make aws-deploy, attach its policy, and look for permissions boundaries and organization policies",
            )
    if not wrong:
        yield ok(subject, f"{arn}, {len(calls)} calls simulated")


def _node_role(deployment: Deployment) -> str:
    """Return the ARN of the role in the nodes' instance profile."""
    name = deployment.config.cluster.instance_profile.rpartition("/")[2]
    profile = deployment.client("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    if not profile["Roles"]:
        raise InputError(f"instance profile {name} has no role; run make aws-deploy")
    return str(profile["Roles"][0]["Arn"])


def _role_arn(deployment: Deployment, name: str) -> str:
    return str(deployment.client("iam").get_role(RoleName=name)["Role"]["Arn"])


def _partition(deployment: Deployment) -> str:
    found: Any = deployment.client("sts").meta.partition
    return str(found)
