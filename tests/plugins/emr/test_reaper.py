"""The reaper, against the embedded EMR."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jobs.config import resolve
from jobs.lake.layout import Lake
from nightjar.aws import store
from nightjar.emr import causes, clusters, requests
from nightjar.emr.reaper import reap
from nightjar.errors import MayStillRunError
from tests.support.emr_faults import refuse

pytestmark = pytest.mark.slow

CONFIG = resolve("s3://lakes/text", "tiny", {})


@pytest.fixture
def project():
    return f"p{uuid.uuid4().hex[:8]}"


@pytest.fixture
def lake(tmp_path):
    return Lake((tmp_path / "lake").as_uri())


@pytest.fixture
def submit(client, aws, project, lake):
    """Create a cluster that is older than it is, with changed tags; all are ended after the test."""
    ids = []

    def create(age=timedelta(hours=26), run_id="one", **tags):
        identity = requests.ClusterIdentity(lake.run(run_id, project=project))
        request = requests.run_job_flow(CONFIG, identity, datetime.now(UTC) - age, "s3://lakes/x/packages/abc")
        changed = requests.tags_of(request) | {f"nightjar:{key}": value for key, value in tags.items()}
        request["Tags"] = [{"Key": key, "Value": value} for key, value in changed.items() if value is not None]
        ids.append(client.run_job_flow(**request)["JobFlowId"])
        return ids[-1]

    yield create
    aws.terminate_job_flows(JobFlowIds=ids)


def state(client, cluster_id):
    return client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"]


def test_only_expired_clusters_of_the_project_are_ended(client, project, lake, submit):
    old, young = submit(), submit(age=timedelta(hours=24), run_id="two")
    theirs = submit(project=f"{project}-x")
    assert reap(client, store(), lake, project, 0.1) == [old]
    assert state(client, old) == "TERMINATED"
    assert "TERMINATED" not in (state(client, young), state(client, theirs))


def test_what_it_ended_is_named_as_the_cause(client, project, lake, submit):
    old, by_hand = submit(), submit(age=timedelta(hours=1))
    reap(client, store(), lake, project, 0.1)
    end = causes.explain_end(client, store(), lake, old)
    assert (end.kind, end.is_replaceable) == ("reaper", False)
    assert f"cluster {old} is TERMINATED; it was ended by the reaper: after 0.0 h" in str(end)
    assert "Terminated by user request (USER_REQUEST)" in str(end)
    client.terminate_job_flows(JobFlowIds=[by_hand])
    assert causes.explain_end(client, store(), lake, by_hand).kind == "hand"


def test_without_its_note_the_time_to_live_hints_at_the_reaper(client, lake, submit):
    old = submit()
    client.terminate_job_flows(JobFlowIds=[old])
    end = causes.explain_end(client, store(), lake, old)
    assert "after its time to live, probably by the reaper; Terminated by user request" in str(end)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"expires": "tomorrow"}, "its tag nightjar:expires is 'tomorrow', not a time"),
        ({"expires": None}, "it has no tag nightjar:expires"),
        ({"project": None}, "but has no tag nightjar:project"),
    ],
)
def test_a_bad_tag_is_named_and_the_rest_is_ended(client, project, lake, submit, tags, reason):
    first, bad, last = submit(run_id="one"), submit(run_id="two", **tags), submit(run_id="three")
    with pytest.raises(MayStillRunError, match=f"cluster {bad} cannot be checked .*{reason}"):
        reap(client, store(), lake, project, 0.1)
    assert state(client, bad) not in ("TERMINATING", "TERMINATED")
    assert [state(client, each) for each in (first, last)] == ["TERMINATED"] * 2


@pytest.mark.parametrize("operation", ["DescribeCluster", "TerminateJobFlows"])
def test_a_denied_call_is_named_and_the_rest_is_ended(client, aws, project, lake, submit, operation):
    first, denied, last = submit(run_id="one"), submit(run_id="two"), submit(run_id="three")
    refuse(client, operation, when=lambda body: denied in body)
    with pytest.raises(MayStillRunError, match=f"cluster {denied} .*{operation}: AccessDeniedException") as caught:
        reap(client, store(), lake, project, 0.1)
    assert first not in str(caught.value)
    assert [state(aws, each) for each in (first, last)] == ["TERMINATED"] * 2


def test_a_lake_that_is_away_keeps_no_cluster_alive(client, project, lake, submit, tmp_path):
    old = submit()
    (tmp_path / "lake").write_text("a file where the folder should be")
    assert reap(client, store(), lake, project, 0.1) == [old]
    assert state(client, old) == "TERMINATED"


def test_a_time_without_a_zone_is_in_utc():
    tags = [{"Key": "nightjar:expires", "Value": "2026-03-01T02:00:00"}]
    assert requests.expiry_time({"Tags": tags}) == datetime(2026, 3, 1, 2, tzinfo=UTC)
    assert clusters.requests.expiry_time({}) is None
