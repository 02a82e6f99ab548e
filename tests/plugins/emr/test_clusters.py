import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jobs.config import resolve
from jobs.lake.layout import Lake
from nightjar.emr import clusters, requests
from nightjar.emr.clusters import create_cluster, end_clusters, end_outlived, find_clusters

CONFIG = resolve("s3://lakes/text", "tiny", {})


@pytest.fixture
def identity():
    return requests.ClusterIdentity(f"p{uuid.uuid4().hex[:8]}", Lake("s3://lakes/x").run("one"))


def request(identity, age=timedelta()):
    return requests.run_job_flow(CONFIG, identity, datetime.now(UTC) - age, "s3://lakes/x/packages/abc")


def state(client, cluster_id):
    return client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"]


def test_a_cluster_is_created_once(aws, identity):
    created = create_cluster(aws, identity, request(identity))
    assert create_cluster(aws, identity, request(identity)) == created
    assert find_clusters(aws, identity) == [created]
    end_clusters(aws, [created], 0.1)
    assert state(aws, created) == "TERMINATED"
    assert find_clusters(aws, identity) == []
    assert create_cluster(aws, identity, request(identity)) != created


def test_of_twins_the_younger_is_ended(aws, identity):
    first, second = (aws.run_job_flow(**request(identity))["JobFlowId"] for _ in range(2))
    assert create_cluster(aws, identity, request(identity)) == first
    end_clusters(aws, [second], 0.1)
    assert find_clusters(aws, identity) == [first]


def test_a_namesake_of_another_lake_is_left_alone(aws, identity):
    other = requests.ClusterIdentity(identity.project, Lake("s3://lakes/other").run("one"))
    theirs = create_cluster(aws, other, request(other))
    mine = create_cluster(aws, identity, request(identity))
    assert mine != theirs
    assert find_clusters(aws, identity) == [mine]


def test_protection_is_lifted_and_ending_twice_is_no_error(aws, identity):
    created = create_cluster(aws, identity, request(identity))
    aws.set_termination_protection(JobFlowIds=[created], TerminationProtected=True)
    end_clusters(aws, [created], 0.1)
    end_clusters(aws, [created], 0.1)
    assert state(aws, created) == "TERMINATED"


def test_a_cluster_that_ended_with_errors_has_ended(aws, identity):
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
    clusters._wait_for_end(aws, created, deadline=float("inf"), poll_seconds=0.1)
    assert state(aws, created) == "TERMINATED_WITH_ERRORS"
    end_clusters(aws, [created], 0.1)


def test_one_that_does_not_end_is_an_error(aws, identity, monkeypatch):
    monkeypatch.setattr(clusters, "END_LIMIT_SECONDS", 0.0)
    monkeypatch.setattr(clusters, "_order_end", lambda *_: None)
    created = create_cluster(aws, identity, request(identity))
    with pytest.raises(clusters.StillRunningError, match=created):
        end_clusters(aws, [created], 0.01)


def test_the_reaper_ends_what_outlived_its_time_and_nothing_else(aws, identity):
    old_run = requests.ClusterIdentity(identity.project, Lake("s3://lakes/x").run("old"))
    old = create_cluster(aws, old_run, request(old_run, age=timedelta(hours=13)))
    young = create_cluster(aws, identity, request(identity))
    foreign = aws.run_job_flow(**request(old_run, timedelta(hours=13)) | {"Tags": []})["JobFlowId"]
    assert end_outlived(aws, identity.project, 0.1) == [old]
    assert state(aws, old) == "TERMINATED"
    assert state(aws, young) not in requests.ENDED_CLUSTER
    assert state(aws, foreign) not in requests.ENDED_CLUSTER
