"""Airflow operators that create a run's EMR cluster, run Spark steps on it and terminate it.

A task may be retried, cleared or killed at any time. So each operator first looks for the cluster or step that an
earlier attempt created, by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from jobs.config import Config
from jobs.errors import DamagedError
from jobs.lake.layout import Run
from nightjar import aws, links, settings
from nightjar.emr import clusters, outcome, requests, steps
from nightjar.errors import StepFailedError
from nightjar.tasks.results import verify_step
from nightjar.triggers import StepTrigger, WatchedStep

if TYPE_CHECKING:
    from airflow.sdk import Context


class CreateClusterOperator(BaseOperator):
    """Create the run's cluster and return its id, without waiting for the cluster to start.

    EMR queues steps while a cluster starts. A setup task that is killed while it waits would lose the cluster's id.
    """

    template_fields: Sequence[str] = ("package_uri",)
    operator_extra_links = (links.RUN_FOLDER, links.CLUSTER)

    def __init__(self, *, package_uri: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.package_uri = package_uri
        self.cluster_id = ""

    def execute(self, context: Context) -> str:
        """Return the id of the run's cluster, which is created unless an earlier attempt did so."""
        identity, run = current_identity(context), current_run(context)
        client = aws.emr_client()
        region = client.meta.region_name
        request = requests.run_job_flow(read_config(run), identity, datetime.now(UTC), self.package_uri, region)
        self.cluster_id = clusters.create_cluster(client, identity, request)
        return self.cluster_id


class SparkStepOperator(BaseOperator):
    """Run one step of the job on the run's cluster, and wait for it in the triggerer.

    The task succeeds when the step is COMPLETED and its manifest verifies. A step that is running or complete is not
    submitted again. A step that fails with exit code 2, the user's error, is not retried. A step that is not part of
    the run's configuration is skipped. `step_limit_seconds` is by default the setting `cluster.step_timeout_seconds`.
    """

    template_fields: Sequence[str] = ("cluster_id", "package_uri")
    operator_extra_links = (links.RUN_FOLDER, links.CLUSTER, links.STEP_LOGS)

    def __init__(
        self, *, step: str, cluster_id: Any, package_uri: Any, step_limit_seconds: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.cluster_id = cluster_id
        self.package_uri = package_uri
        self.step_limit_seconds = step_limit_seconds
        self.step_id = ""

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the step unless the cluster has it, and defer the task until the step has ended."""
        run = current_run(context)
        config = read_config(run)
        if self.step not in config.steps:
            raise AirflowSkipException(f"{self.step} is not part of this run's configuration")
        client = aws.emr_client()
        attempt = self._next_attempt(client, context, run)
        request = requests.add_step(self.cluster_id, self.step, config, run, self.package_uri, attempt)
        self.step_id = steps.submit_step(client, request)
        links.push(self, context["ti"])
        state = steps.describe_step(client, self.cluster_id, self.step_id)["Status"]["State"]
        if state not in requests.ACTIVE_STEP_STATES:
            return self.finish(context, {"step_id": self.step_id, "state": state})
        watched = WatchedStep(
            cluster_id=self.cluster_id,
            step_id=self.step_id,
            progress_uri=run.progress(self.step),
            poll_seconds=settings.load().poll_seconds,
            limit_seconds=self.step_limit_seconds or config.cluster.step_timeout_seconds,
        )
        self.defer(trigger=StepTrigger(**asdict(watched)), method_name="finish")

    def finish(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counts in the step's manifest, or fail if the step failed, timed out or left no valid manifest."""
        run, client = current_run(context), aws.emr_client()
        self.step_id = event["step_id"]
        if event["state"] == "OVERDUE":
            steps.cancel_step(client, self.cluster_id, self.step_id)
            raise AirflowFailException(
                f"{self.step} exceeded its time limit and was cancelled; raise cluster.step_timeout_seconds"
            )
        if event["state"] != "COMPLETED":
            self._fail(client, run)
        try:
            manifest = verify_step(self.step, run, aws.store())
        except DamagedError as error:
            raise StepFailedError(
                f"{self.step} ended with exit code 0, but its output is incomplete: {error}"
            ) from None
        counts: dict[str, Any] = without_nul(manifest.counts)
        self.log.info("%s is complete and verified: %s", self.step, counts)
        return counts

    def on_kill(self) -> None:
        """Cancel the step and fail the task. Airflow would otherwise continue the task after the signal."""
        if self.step_id:
            steps.cancel_step(aws.emr_client(), self.cluster_id, self.step_id)
        raise AirflowFailException(f"{self.step} was cancelled: Airflow ended the task")

    def _next_attempt(self, client: Any, context: Context, run: Run) -> int:
        """Return the number that this attempt at the step has if it is submitted now."""
        store = aws.store()
        written = store.info(run.config)
        since = datetime.fromtimestamp(written.modified_at if written else 0.0, UTC)
        found = {self.cluster_id, *clusters.all_clusters(client, current_identity(context), since)}
        return steps.next_attempt(client, found, self.step, store.list_folders(run.step_attempts(self.step)))

    def _fail(self, client: Any, run: Run) -> None:
        settled = settings.load()
        step = steps.describe_step(client, self.cluster_id, self.step_id)
        wait_seconds = outcome.log_wait_seconds(client.meta.endpoint_url, settled.poll_seconds)
        failure = outcome.explain_failure(client, aws.store(), settled.lake, self.cluster_id, step, wait_seconds)
        self.log.error("Last lines of the driver's log:\n%s", failure.log_tail)
        raise failure.error(self.step, self.step_id)


class TerminateClustersOperator(BaseOperator):
    """Terminate the run's clusters, found by name and tag, and wait until they have terminated.

    The operator waits in the worker, so that it does not depend on the triggerer.
    """

    def execute(self, context: Context) -> list[str]:
        """Terminate the clusters and return their ids."""
        client = aws.emr_client()
        found = clusters.find_clusters(client, current_identity(context))
        clusters.terminate_clusters(client, found, settings.load().poll_seconds)
        return found


def current_run(context: Context) -> Run:
    """Return the run that a task belongs to."""
    return settings.load().run(str(context["run_id"]))


def current_identity(context: Context) -> requests.ClusterIdentity:
    """Return the identity of the current run's cluster."""
    return requests.ClusterIdentity(settings.load().project, current_run(context))


def read_config(run: Run) -> Config:
    """Return the configuration that `preflight` wrote."""
    return Config.from_json(aws.store().read_bytes(run.config).decode(), run.config)


def without_nul(value: Any) -> Any:
    """Return a JSON value with NUL characters replaced. PostgreSQL refuses NUL, which a model may generate."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [without_nul(each) for each in value]
    if isinstance(value, dict):
        return {without_nul(key): without_nul(each) for key, each in value.items()}
    return value
