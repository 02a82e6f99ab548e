"""The links of the tasks, under "Extra Links" of a task instance: the run's folder, the cluster, logs, model and text.

A worker makes a link's URL and stores it as an XCom. Links to places in the lake open pages of `nightjar.web`, or of
the S3 console if the cluster is on AWS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf

from jobs.lake.layout import Lake, Run
from jobs.lake.names import below
from jobs.lake.uri import bucket_and_key, is_s3, join, relative_name
from nightjar import aws, settings
from nightjar.runs import located_run

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/nightjar/lake"
"""The path of the lake's pages in Airflow's API server."""


class Link(BaseOperatorLink):
    """A link of a task instance.

    Args:
        name: The text of the link.
        url: A function that takes the operator and the run, and returns the link's URL. If it returns "", there is no
            link.
    """

    def __init__(self, name: str, url: Callable[[Any, Run], str]) -> None:
        self._name = name
        self._url = url

    @property
    def name(self) -> str:
        """The text of the link."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """The key of the XCom with the URL."""
        return f"_link_{self._name.lower().replace(' ', '_')}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL. Airflow calls this in the worker when a task ends."""
        return self._url(operator, located_run(ti_key.dag_id, ti_key.run_id))


def push(operator: BaseOperator, task_instance: Any) -> None:
    """Store the links of a task that is still running. Airflow itself stores them only when a task ends."""
    for link in operator.operator_extra_links:
        task_instance.xcom_push(key=link.xcom_key, value=link.get_link(operator, ti_key=task_instance))


def folder_url(uri: str) -> str:
    """Return the URL of a page with the files of a folder in the lake."""
    return _url(uri, "/")


def file_url(uri: str) -> str:
    """Return the URL of a page with a file of the lake, or "" if there is no such file."""
    return _url(uri, "") if aws.store().exists(uri) else ""


def cluster_url(cluster_id: str, lake: Lake) -> str:
    """Return the URL of a cluster's page in the EMR console, or of its logs in the lake if the EMR is embedded.

    Return "" without a cluster id.
    """
    if not cluster_id:
        return ""
    if not (place := _aws_place(lake.uri)):
        return folder_url(below(lake.logs, cluster_id))
    from airflow.providers.amazon.aws.links.emr import EmrClusterLink  # noqa: PLC0415 - slow to import

    return EmrClusterLink.format_str.format(**place, job_flow_id=cluster_id)


def _url(uri: str, end: str) -> str:
    lake_uri = settings.load().lake.uri
    if place := _aws_place(lake_uri):
        bucket, key = bucket_and_key(uri)
        view = "buckets" if end else "object"
        return (
            f"https://console.{place['aws_domain']}/s3/{view}/{bucket}"
            f"?region={place['region_name']}&prefix={quote(key + end)}"
        )
    base = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")
    return f"{base}{PAGES}/{quote(relative_name(uri, lake_uri))}{end}"


def _aws_place(lake_uri: str) -> dict[str, str] | None:
    """Return the region and the domain of the console, or None if the cluster is not on AWS."""
    if not is_s3(lake_uri):
        return None
    meta = aws.emr_client().meta
    if not aws.is_on_aws(meta.endpoint_url):
        return None
    from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink  # noqa: PLC0415 - slow to import

    return {"region_name": meta.region_name, "aws_domain": BaseAwsLink.get_aws_domain(meta.partition) or ""}


RUN_FOLDER = Link("Run folder", lambda _, run: folder_url(run.uri))
MODEL = Link("Model", lambda _, run: folder_url(run.model))
REPORT = Link("Report", lambda _, run: file_url(run.report))
TEXT = Link("Generated text", lambda _, run: file_url(join(run.generate, "generated.txt")))
CLUSTER = Link("Cluster", lambda operator, run: cluster_url(operator.cluster_id, Lake(run.lake_uri)))
STEP_LOGS = Link(
    "Step logs",
    lambda operator, run: (
        folder_url(below(Lake(run.lake_uri).logs, f"{operator.cluster_id}/steps/{operator.step_id}"))
        if operator.step_id
        else ""
    ),
)
OF_TASKS = {"train": [MODEL], "generate": [TEXT], "pull_stats": [REPORT], "promote": [MODEL]}
"""The additional links of some tasks. Every task has a link to the run's folder, and operators add their own links."""
