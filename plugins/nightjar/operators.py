"""Airflow operators that create a run's EMR cluster, run Spark steps on it and terminate it.

A task may be retried, cleared or killed at any time. So each operator first looks for the cluster or step that an
earlier attempt created. The record of a run's clusters is in the lake (`nightjar.emr.records`), not in Airflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from botocore.exceptions import ClientError

from jobs.config import Config
from jobs.errors import DamagedError, NightjarError
from jobs.lake.layout import Run
from nightjar import aws, links, settings
from nightjar.emr import outcome, requests, steps
from nightjar.emr.attempts import Attempts
from nightjar.emr.causes import ClusterEnd
from nightjar.emr.run_clusters import RunClusters
from nightjar.errors import AWS_ERRORS, FinalError, StepFailedError, message_of
from nightjar.runs import located_run, renewed_config
from nightjar.tasks import bill
from nightjar.tasks.results import find_finished, to_storable_json, unfinished_steps, verify_step
from nightjar.triggers import StepTrigger, WatchedStep
from nightjar.waiting import renew_turn

if TYPE_CHECKING:
    from airflow.sdk import Context


class _ClusterOperator(BaseOperator):
    """An operator that may create the run's cluster."""

    clusters: RunClusters | None = None
    cancelled = False

    def acquire_cluster(self, context: Context, config: Config, package_uri: str) -> str:
        """Return the id of the run's cluster. Create the cluster if the run has none."""
        renew_turn(context)
        self.clusters = current_clusters(context)
        cluster_id = self.clusters.acquire(config, package_uri)
        if self.cancelled:
            raise AirflowFailException(f"{self.task_id} was cancelled: Airflow ended the task")
        return cluster_id

    def on_kill(self) -> None:
        """Fail the task. A RunJobFlow request in progress finishes first, so that the cluster's id is not lost."""
        self.cancelled = True
        if not (self.clusters and self.clusters.is_asking):
            raise AirflowFailException(f"{self.task_id} was cancelled: Airflow ended the task")


class CreateClusterOperator(_ClusterOperator):
    """Create the run's cluster and return its id, without waiting for the cluster to start.

    EMR queues steps while a cluster starts. A setup task that is killed while it waits would lose the cluster's id. If
    the outputs of all steps are complete, no cluster is created.
    """

    template_fields: Sequence[str] = ("package_uri",)
    operator_extra_links = (links.RUN_FOLDER, links.CLUSTER)

    def __init__(self, *, package_uri: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.package_uri = package_uri
        self.cluster_id = ""

    def execute(self, context: Context) -> str:
        """Return the id of the run's cluster, or "" if no step needs one. Create the cluster if the run has none."""
        run = current_run(context)
        config = renewed_config(run, context["params"])
        needed = unfinished_steps(config, run, aws.store())
        if not needed:
            self.log.info("No cluster is created: all steps of this run have finished before")
            return ""
        self.log.info("Steps to run: %s", ", ".join(needed))
        self.cluster_id = self.acquire_cluster(context, config, self.package_uri)
        return self.cluster_id


class SparkStepOperator(_ClusterOperator):
    """Run one step of the job on the run's cluster, and wait for it in the triggerer.

    The task succeeds when the step is COMPLETED and its output has all files of its manifest. A step that runs, or
    whose output is complete, is not submitted again. A step that fails with exit code 2, a mistake of the user, is not
    retried. A step that is not part of the run's configuration is skipped. If the cluster was lost, the step starts
    again on a new cluster.

    `step_limit_seconds` is by default the setting `cluster.step_timeout_seconds`.
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
        self.own_run: Run | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the step unless it runs or has finished, and defer the task until the step has ended."""
        return self._start(context)

    def finish(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counts in the step's manifest, or fail if the step failed, timed out or left no valid manifest."""
        self.own_run = run = current_run(context)
        self.cluster_id, self.step_id = event["cluster_id"], event["step_id"]
        if self.cluster_id in current_clusters(context).dropped_ids():
            # SQLite reuses the number of a deleted trigger, so Airflow may pass an old trigger's event to this task.
            self.log.info("Ignored an old event about step %s on cluster %s", self.step_id, self.cluster_id)
            return self._start(context)
        client = aws.emr_client()
        if event["ending"] in ("overdue", "not started"):
            raise self._give_up(client, event["ending"])
        if event["ending"] == "ended" and event["state"] == "COMPLETED":
            return self._verify(run)
        end = self._end_of_cluster(client, context, event)
        if end is None:
            raise self._failure(client, event)
        return self._replace_cluster(context, end, "did not finish")

    def on_kill(self) -> None:
        """Cancel the step and fail the task. Airflow would otherwise continue the task after the signal."""
        try:
            if self.step_id:
                steps.cancel_steps(aws.emr_client(), self.cluster_id, [self.step_id])
            elif self.own_run and self.cluster_id:  # the answer to AddJobFlowSteps may be on its way
                steps.cancel_steps_of_run(aws.emr_client(), self.cluster_id, self.own_run, self.step)
        except AWS_ERRORS as error:
            self.log.warning("The step could not be cancelled (%s); it will end with the cluster", message_of(error))
        super().on_kill()

    def _start(self, context: Context) -> dict[str, Any]:
        self.own_run = run = current_run(context)
        config = renewed_config(run, context["params"])
        if self.step not in config.steps:
            raise AirflowSkipException(f"{self.step} is not part of this run's configuration")
        client, store = aws.emr_client(), aws.store()
        if (finished := find_finished(self.step, run, store)) is not None:
            self.log.info("%s has finished before: its output is complete", self.step)
            return self._report(finished.counts)
        self.cluster_id = self.acquire_cluster(context, config, self.package_uri)
        links.push(self, context["ti"])
        attempts, poll_seconds = Attempts(client, store, run, self.step), settings.load().poll_seconds
        if existing := attempts.find(self.cluster_id, poll_seconds):
            self.log.info("Waiting for the existing step %s (%s)", self.step, existing)
            self.step_id = existing
        else:
            number = attempts.next_number(current_clusters(context).recorded_ids())
            request = requests.add_step(self.cluster_id, self.step, config, run, self.package_uri, number)
            try:
                self.step_id = attempts.submit(number, request)
            except ClientError:
                end = current_clusters(context).explain_end(self.cluster_id)
                if end is None:
                    raise
                return self._replace_cluster(context, end, "was not submitted")
        links.push(self, context["ti"])
        state = steps.describe_step(client, self.cluster_id, self.step_id)["Status"]["State"]
        if state not in requests.ACTIVE_STEP_STATES:
            about = {"cluster_id": self.cluster_id, "step_id": self.step_id, "state": state}
            return self.finish(context, {**about, "ending": "ended", "error": ""})
        watched = WatchedStep(
            cluster_id=self.cluster_id,
            step_id=self.step_id,
            progress_uri=run.progress(self.step),
            poll_seconds=poll_seconds,
            limit_seconds=self.step_limit_seconds or config.cluster.step_timeout_seconds,
        )
        self.defer(trigger=StepTrigger(**asdict(watched)), method_name="finish")

    def _replace_cluster(self, context: Context, end: ClusterEnd, what: str) -> dict[str, Any]:
        """Start the step again on a new cluster. Fail if the cause in `end` would end the new cluster, too."""
        if not end.is_replaceable:
            raise FinalError(f"{self.step} {what}: {end}")
        self.log.warning("%s %s: %s", self.step, what, end)
        return self._start(context)

    def _verify(self, run: Run) -> dict[str, Any]:
        try:
            manifest = verify_step(self.step, run, aws.store())
        except DamagedError as error:
            raise StepFailedError(
                f"{self.step} ended with exit code 0, but its output is incomplete: {error}"
            ) from None
        return self._report(manifest.counts)

    def _report(self, counts: Mapping[str, Any]) -> dict[str, Any]:
        reported: dict[str, Any] = to_storable_json(dict(counts))
        self.log.info("%s is complete and verified: %s", self.step, reported)
        return reported

    def _give_up(self, client: Any, ending: str) -> FinalError:
        """Cancel a step that exceeded a time limit, and return an error that names the limit."""
        try:
            steps.cancel_steps(client, self.cluster_id, [self.step_id])
            done = "and was cancelled"
        except AWS_ERRORS as error:
            done = f"and could not be cancelled ({message_of(error)}); it will end with the cluster"
        if ending == "overdue":
            return FinalError(f"{self.step} exceeded its time limit {done}; raise cluster.step_timeout_seconds")
        try:
            status = client.describe_cluster(ClusterId=self.cluster_id)["Cluster"]["Status"]
            words = f"{status['State']} {status.get('StateChangeReason', {}).get('Message', '')}".strip()
        except AWS_ERRORS as error:
            words = f"in an unknown state ({message_of(error)})"
        minutes = requests.START_LIMIT_SECONDS / 60
        return FinalError(
            f"{self.step} did not start within {minutes:g} min {done}; cluster {self.cluster_id} is {words}"
        )

    def _end_of_cluster(self, client: Any, context: Context, event: Mapping[str, Any]) -> ClusterEnd | None:
        """Return why the cluster ended if its end also ended the step. Return None if the step failed by itself."""
        try:
            if event["ending"] == "ended" and not outcome.ended_with_cluster(
                aws.store(), steps.describe_step(client, self.cluster_id, self.step_id)
            ):
                return None
            return current_clusters(context).explain_end(self.cluster_id)
        except AWS_ERRORS as error:
            self.log.warning("Cannot find out whether the cluster ended (%s)", message_of(error))
            return None

    def _failure(self, client: Any, event: Mapping[str, Any]) -> NightjarError:
        """Return an error with the cause of the step's failure. If the cause cannot be read, the error says so."""
        if event["ending"] == "not seen":
            return StepFailedError(f"{self.step}: its state cannot be read (step {self.step_id}): {event['error']}")
        settled = settings.load()
        wait_seconds = outcome.log_wait_seconds(client.meta.endpoint_url, settled.poll_seconds)
        try:
            step = steps.describe_step(client, self.cluster_id, self.step_id)
            failure = outcome.explain_failure(client, aws.store(), settled.lake, self.cluster_id, step, wait_seconds)
        except AWS_ERRORS as error:
            return StepFailedError(
                f"{self.step} is {event['state']} (step {self.step_id}); the cause cannot be read ({message_of(error)})"
            )
        self.log.error("Last lines of the driver's log:\n%s", failure.log_tail)
        return failure.error(self.step, self.step_id)


class TerminateClustersOperator(BaseOperator):
    """Terminate the run's clusters, and wait until they have terminated.

    The operator waits in the worker, so that it does not depend on the triggerer.

    Args:
        starts_again: Whether the run starts again afterwards, with a new cluster.
    """

    def __init__(self, *, starts_again: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.starts_again = starts_again

    def execute(self, context: Context) -> list[str]:
        """Terminate the clusters and return their ids."""
        ended = current_clusters(context).end(known_ids(context), drop=self.starts_again)
        if not self.starts_again:
            bill.settle(current_run(context), aws.store(), settings.load().stats_dir)
        return ended


def current_run(context: Context) -> Run:
    """Return the run that a task belongs to."""
    return located_run(context["ti"].dag_id, str(context["run_id"]))


def current_identity(context: Context) -> requests.ClusterIdentity:
    """Return the identity of the current run's cluster. The lake is not read: ending clusters must not need it."""
    return requests.ClusterIdentity(settings.load().run(context["ti"].dag_id, str(context["run_id"])))


def current_clusters(context: Context) -> RunClusters:
    """Return the clusters of the run that a task belongs to."""
    return RunClusters(aws.emr_client, aws.store(), current_identity(context), settings.load().poll_seconds)


def known_ids(context: Context) -> list[str]:
    """Return the cluster id that the task create_cluster returned, as a list. Return [] if it returned none."""
    found = context["ti"].xcom_pull(task_ids="create_cluster")
    return [found] if isinstance(found, str) and found else []
