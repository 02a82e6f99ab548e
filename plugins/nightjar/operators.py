"""What `train_llm` does to its cluster: create it, run steps on it, end it.

Any of these tasks may be tried again, cleared or killed: each first looks for what an earlier try left, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from jobs.config import Config
from jobs.errors import DamagedError, InputError
from jobs.lake.layout import Run
from nightjar import aws, settings
from nightjar.emr import clusters, requests, steps
from nightjar.errors import StepFailedError, UserError
from nightjar.storage import open_storage
from nightjar.tasks.manifests import output_uri, verify
from nightjar.triggers import StepTrigger, Watch

if TYPE_CHECKING:
    from airflow.sdk import Context

LOG_WAIT_POLLS = 12
"""How many polls a failed step's logs are waited for: EMR uploads them every few minutes."""


class CreateClusterOperator(BaseOperator):
    """Submits the run's cluster and returns its id at once.

    It does not wait: EMR queues steps while the cluster starts, and a setup that is killed while it waits would leave
    its teardown without a cluster to end.

    Args:
        package_uri: Folder of the packaged job, from which every node builds the job's environment.
    """

    template_fields: Sequence[str] = ("package_uri",)

    def __init__(self, *, package_uri: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.package_uri = package_uri

    def execute(self, context: Context) -> str:
        """Create the cluster, or find it."""
        identity, run = current_identity(context), current_run(context)
        request = requests.run_job_flow(read_config(run), identity, datetime.now(UTC), self.package_uri)
        return clusters.create_cluster(aws.emr_client(), identity, request)


class SparkStepOperator(BaseOperator):
    """Runs one of the job's steps on the run's cluster, and waits for it in the triggerer.

    It succeeds when the step is COMPLETED and its manifest verifies. It never submits a step twice; a step that fails
    by the user's error (exit code 2) is not tried again. A step that the run's configuration does not ask for is
    skipped.

    Args:
        step: Name of the step, one of `jobs.lake.layout.STEPS`.
        cluster_id: Id of the cluster, from `CreateClusterOperator`.
        package_uri: Folder of the packaged job.
        step_limit_seconds: Longest duration of the step; by default the configuration's.
    """

    template_fields: Sequence[str] = ("cluster_id", "package_uri")

    def __init__(
        self,
        *,
        step: str,
        cluster_id: Any,
        package_uri: Any,
        step_limit_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.cluster_id = cluster_id
        self.package_uri = package_uri
        self.step_limit_seconds = step_limit_seconds
        self._step_id = ""

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the step, or find it, and hand over to the trigger unless the step has ended already."""
        run, poll_seconds = current_run(context), settings.load().poll_seconds
        config = read_config(run)
        if self.step not in config.steps:
            raise AirflowSkipException(f"{self.step}: this run's configuration does not ask for it")
        request = requests.add_step(self.cluster_id, self.step, config, run, self.package_uri)
        client = aws.emr_client()
        self._step_id = steps.submit_step(client, request)
        state = steps.describe_step(client, self.cluster_id, self._step_id)["Status"]["State"]
        if state not in requests.LIVE_STEP:
            return self.finish(context, {"step_id": self._step_id, "state": state})
        watch = Watch(
            cluster_id=self.cluster_id,
            step_id=self._step_id,
            progress_uri=run.progress(self.step),
            poll_seconds=poll_seconds,
            limit_seconds=self.step_limit_seconds or config.cluster.step_timeout_seconds,
        )
        self.defer(trigger=StepTrigger(**asdict(watch)), method_name="finish")

    def finish(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Judge how the step ended; return what its manifest counts."""
        run, client = current_run(context), aws.emr_client()
        self._step_id = event["step_id"]
        if event["state"] == "OVERDUE":
            steps.cancel_step(client, self.cluster_id, self._step_id)
            raise AirflowFailException(f"{self.step} took too long and was cancelled; see cluster.step_timeout_seconds")
        if event["state"] != "COMPLETED":
            self._fail(client, run)
        storage = open_storage(run.uri)
        try:
            manifest = verify(output_uri(self.step, run, storage), storage)
        except DamagedError as error:
            raise StepFailedError(f"{self.step} ended with exit code 0, but {error}") from None
        counts: dict[str, Any] = storable(manifest.get("counts", {}))
        self.log.info("%s is complete and verified: %s", self.step, counts)
        return counts

    def on_kill(self) -> None:
        """Cancel the step, and end: Airflow would go on with the task after its signal."""
        if self._step_id:
            steps.cancel_step(aws.emr_client(), self.cluster_id, self._step_id)
        raise AirflowFailException(f"{self.step} was ended from outside")

    def _fail(self, client: Any, run: Run) -> None:
        settled = settings.load()
        step = steps.describe_step(client, self.cluster_id, self._step_id)
        wait_seconds = settled.poll_seconds * LOG_WAIT_POLLS
        storage = open_storage(run.uri)
        failure = steps.explain_failure(client, storage, settled.lake, self.cluster_id, step, wait_seconds)
        self.log.error("Last lines of the driver's log:\n%s", failure.tail)
        if failure.exit_code == InputError.exit_code and failure.tail:
            raise UserError(failure.tail.splitlines()[-1])
        raise StepFailedError(f"{self.step} failed (step {self._step_id}): {failure.reason}")


class EndClustersOperator(BaseOperator):
    """Ends the run's clusters and waits until they have ended, with or without errors.

    They are found by name and tag, so also when the task that created one was killed before it could tell its id. It
    waits in the worker: the end of a cluster depends on as few parts as can be.
    """

    def execute(self, context: Context) -> list[str]:
        """End the clusters; return their ids."""
        client = aws.emr_client()
        found = clusters.find_clusters(client, current_identity(context))
        clusters.end_clusters(client, found, settings.load().poll_seconds)
        return found


def current_run(context: Context) -> Run:
    """The folder of the run that a task belongs to."""
    return settings.load().run(str(context["run_id"]))


def current_identity(context: Context) -> requests.ClusterIdentity:
    """Which cluster is the current run's."""
    return requests.ClusterIdentity(settings.load().project, current_run(context))


def read_config(run: Run) -> Config:
    """The configuration that preflight wrote."""
    return Config.from_json(open_storage(run.uri).read(run.config).decode(), run.config)


def storable(value: Any) -> Any:
    """A value of JSON as Airflow's database takes it: PostgreSQL refuses NUL, which a model may well generate."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return {storable(key): storable(each) for key, each in value.items()}
    return value
