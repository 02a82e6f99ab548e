"""Creating and terminating clusters, against the embedded EMR."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jobs.config import resolve
from jobs.lake.layout import Lake
from nightjar.emr import requests
from nightjar.emr.clusters import (
    TerminationTimeoutError,
    create_cluster,
    find_clusters,
    terminate_clusters,
    terminate_expired,
    wait_until_ended,
)

pytestmark = pytest.mark.slow

CONFIG = resolve("s3://lakes/text", "tiny", {})


@pytest.fixture
def identity():
    return requests.ClusterIdentity(f"p{uuid.uuid4().hex[:8]}", Lake("s3://lakes/x").run("one"))


def request(identity, age=timedelta()):
    return requests.run_job_flow(CONFIG, identity, datetime.now(UTC) - age, "s3://lakes/x/packages/abc")


def state(client, cluster_id):
    return client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"]


def test_cluster_is_created_once(aws, identity):
    created = create_cluster(aws, identity, request(identity))
    assert create_cluster(aws, identity, request(identity)) == created
    assert find_clusters(aws, identity) == [created]
    terminate_clusters(aws, [created], 0.1)
    assert state(aws, created) == "TERMINATED"
    assert find_clusters(aws, identity) == []
    assert create_cluster(aws, identity, request(identity)) != created


def test_duplicate_cluster_is_terminated(aws, identity):
    both = {aws.run_job_flow(**request(identity))["JobFlowId"] for _ in range(2)}
    kept = create_cluster(aws, identity, request(identity))
    terminate_clusters(aws, list(both - {kept}), 0.1)
    assert find_clusters(aws, identity) == [kept]


def test_cluster_of_the_same_name_in_another_lake_is_ignored(aws, identity):
    other = requests.ClusterIdentity(identity.project, Lake("s3://lakes/other").run("one"))
    theirs = create_cluster(aws, other, request(other))
    mine = create_cluster(aws, identity, request(identity))
    assert mine != theirs
    assert find_clusters(aws, identity) == [mine]


def test_terminating_removes_protection_and_may_be_repeated(aws, identity):
    created = create_cluster(aws, identity, request(identity))
    aws.set_termination_protection(JobFlowIds=[created], TerminationProtected=True)
    terminate_clusters(aws, [created], 0.1)
    terminate_clusters(aws, [created], 0.1)
    assert state(aws, created) == "TERMINATED"


def test_cluster_that_terminated_with_errors_counts_as_terminated(aws, identity):
    failing = request(identity) | {
        "Steps": [
            {
                "Name": "fails",
                "ActionOnFailure": "TERMINATE_CLUSTER",
                "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["false"]},
            }
        ]
    }
    created = aws.run_job_flow(**failing)["JobFlowId"]
    assert wait_until_ended(aws, created, deadline=float("inf"), poll_seconds=0.1) == "TERMINATED_WITH_ERRORS"
    terminate_clusters(aws, [created], 0.1)


def test_cluster_that_does_not_terminate_is_an_error(aws, identity):
    created = create_cluster(aws, identity, request(identity))
    with pytest.raises(TerminationTimeoutError, match=f"{created} is still .* terminate it in the EMR console"):
        wait_until_ended(aws, created, deadline=time.monotonic(), poll_seconds=0.01)


def test_only_expired_clusters_of_the_project_are_reaped(aws, identity):
    old_run = requests.ClusterIdentity(identity.project, Lake("s3://lakes/x").run("old"))
    old = create_cluster(aws, old_run, request(old_run, age=timedelta(hours=13)))
    young = create_cluster(aws, identity, request(identity))
    untagged = aws.run_job_flow(**request(old_run, timedelta(hours=13)) | {"Tags": []})["JobFlowId"]
    assert terminate_expired(aws, identity.project, 0.1) == [old]
    assert state(aws, old) == "TERMINATED"
    assert state(aws, young) not in requests.ENDED_CLUSTER_STATES
    assert state(aws, untagged) not in requests.ENDED_CLUSTER_STATES
