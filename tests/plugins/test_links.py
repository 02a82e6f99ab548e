"""The links of tasks: addresses of pages here, and of AWS's consoles for a cluster on AWS."""

import boto3
import pytest

from jobs.lake.layout import Lake
from jobs.lake.uri import join
from nightjar import aws, links
from nightjar.operators import CreateClusterOperator, SparkStepOperator
from tests.support.airflow import BUCKET

CLUSTER, STEP = "j-1ABC", "s-2DEF"
RUN = "lab/default/manual__2026-11-26T03%3D3A00%3D3A00%3D2B00%3D3A00"


class TaskInstance:
    """The part of a task instance that links need."""

    dag_id = "train_llm"
    run_id = "manual__2026-11-26T03:00:00+00:00"


@pytest.fixture
def urls(monkeypatch):
    """Return the links of a step's task by name, for a lake."""

    def links_of(lake_uri):
        monkeypatch.setenv("NIGHTJAR_LAKE", lake_uri)
        task = SparkStepOperator(task_id="train", step="train", cluster_id=CLUSTER, package_uri="")
        task.step_id = STEP
        found = (*task.operator_extra_links, links.MODEL, links.TEXT)
        return {link.name: link.get_link(task, ti_key=TaskInstance()) for link in found}

    return links_of


def test_a_local_lake_has_pages_in_airflow(urls, tmp_path):
    run = f"/nightjar/lake/runs/{RUN}"
    assert urls((tmp_path / "my lake").as_uri()) == {
        "Run folder": f"{run}/",
        "Cluster": f"/nightjar/lake/logs/{CLUSTER}/",
        "Step logs": f"/nightjar/lake/logs/{CLUSTER}/steps/{STEP}/",
        "Model": f"{run}/model/",
        "Generated text": "",  # there is none
    }


def test_a_file_that_exists_has_a_link(urls, tmp_path):
    lake = Lake(tmp_path.as_uri())
    aws.store().write_bytes(join(lake.run(TaskInstance.run_id, "default").generate, "generated.txt"), b"text")
    assert urls(lake.uri)["Generated text"].endswith("/generate/generated.txt")


def test_a_lake_in_the_embedded_s3_has_pages_in_airflow(urls, aws):
    assert aws
    assert urls(f"s3://{BUCKET}/a lake")["Cluster"] == f"/nightjar/lake/logs/{CLUSTER}/"


def test_on_aws_the_links_lead_to_its_consoles(urls, monkeypatch):
    client = boto3.client(
        "emr", "eu-west-1", endpoint_url="https://elasticmapreduce.eu-west-1.amazonaws.com",
        aws_access_key_id="x", aws_secret_access_key="x",
    )  # fmt: skip
    monkeypatch.setattr(aws, "emr_client", lambda: client)
    monkeypatch.setattr(aws.Store, "exists", lambda *_: True)
    found = urls("s3://lakes/my lake")
    console, of_run = "https://console.aws.amazon.com", f"my%20lake/runs/{RUN}"
    assert found == {
        "Run folder": f"{console}/s3/buckets/lakes?region=eu-west-1&prefix={of_run}/",
        "Cluster": f"{console}/emr/home?region=eu-west-1#/clusterDetails/{CLUSTER}",
        "Step logs": f"{console}/s3/buckets/lakes?region=eu-west-1&prefix=my%20lake/logs/{CLUSTER}/steps/{STEP}/",
        "Model": f"{console}/s3/buckets/lakes?region=eu-west-1&prefix={of_run}/model/",
        "Generated text": f"{console}/s3/object/lakes?region=eu-west-1&prefix={of_run}/generate/generated.txt",
    }


def test_an_address_below_a_proxys_path_keeps_it(urls, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://tools.example/airflow/")
    assert urls(tmp_path.as_uri())["Cluster"].startswith("/airflow/nightjar/lake/logs/")


def test_without_a_cluster_or_a_step_there_is_no_link(monkeypatch, tmp_path):
    monkeypatch.setenv("NIGHTJAR_LAKE", tmp_path.as_uri())
    create = CreateClusterOperator(task_id="create", package_uri="")
    step = SparkStepOperator(task_id="train", step="train", cluster_id=CLUSTER, package_uri="")
    assert links.CLUSTER.get_link(create, ti_key=TaskInstance()) == ""
    assert links.STEP_LOGS.get_link(step, ti_key=TaskInstance()) == ""
