"""Actions of the EMR API that moto does not have, or answers differently from AWS."""

import threading
from typing import Any

from moto.core.common_types import TYPE_RESPONSE
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult, PaginatedResult
from moto.emr.exceptions import InvalidCluster, InvalidRequestException, ValidationException
from moto.emr.responses import ElasticMapReduceResponse

from infra.emr.models import ENDING, NOT_MODIFIABLE, LocalCluster

_ID_PARAMETERS = ("ClusterId", "JobFlowId", "ResourceId")


class LocalResponse(ElasticMapReduceResponse):
    """moto's EMR API with the additions of the embedded EMR. Each action is the method of the same name."""

    def call_action(self) -> TYPE_RESPONSE:
        """Answer a request. An unknown cluster or action is an error of the client, not of the server."""
        try:
            named = [self._get_param(name) for name in _ID_PARAMETERS] + list(self._get_param("JobFlowIds", []))
            for cluster_id in filter(None, named):
                self.backend.describe_cluster(cluster_id)
            return super().call_action()
        except ServiceException as error:
            return self._refuse(error)
        except NotImplementedError:
            return self._refuse(
                InvalidRequestException(f"{self._get_action()}: the embedded EMR does not implement this action.")
            )

    def run_job_flow(self) -> ActionResult:
        """Create a cluster and start it once the whole request has been recorded."""
        try:
            answer = super().run_job_flow()
        except Exception:
            self._remove_incomplete_cluster()
            raise
        assert isinstance(answer.result, dict)
        cluster = self._cluster(answer.result["JobFlowId"])
        cluster.idle_timeout_seconds = self._idle_timeout()
        cluster.launch()
        return answer

    def list_clusters(self) -> ActionResult:
        """List clusters, newest first."""
        clusters = self.backend.list_clusters(
            self._get_param("ClusterStates", []), self._get_param("CreatedAfter"), self._get_param("CreatedBefore")
        )
        return PaginatedResult({"Clusters": sorted(clusters, key=lambda c: c.creation_datetime, reverse=True)})

    def describe_step(self) -> ActionResult:
        """Describe a step."""
        step_id = self._get_param("StepId")
        step = self.backend.describe_step(self._get_param("ClusterId"), step_id)
        if step is None:
            raise InvalidRequestException(f"Step id '{step_id}' is not valid.")
        return ActionResult({"Step": step})

    def cancel_steps(self) -> ActionResult:
        """Cancel pending and running steps: SIGTERM, then SIGKILL, whatever the StepCancellationOption."""
        cluster = self._cluster(self._get_param("ClusterId"))
        infos = []
        for step_id in self._get_param("StepIds", []):
            done = cluster.cancel_step(step_id)
            info = {"StepId": step_id, "Status": "SUBMITTED" if done else "FAILED"}
            if not done:
                info["Reason"] = "Step id is not valid." if done is None else "Step has already ended."
            infos.append(info)
        return ActionResult({"CancelStepsInfoList": infos})

    def set_termination_protection(self) -> ActionResult:
        """Turn the termination protection of clusters on or off."""
        for cluster in self._open_clusters():
            cluster.set_termination_protection(self._get_bool_param("TerminationProtected", False))
            cluster.wake()
        return EmptyResult()

    def set_keep_job_flow_alive_when_no_steps(self) -> ActionResult:
        """Set whether clusters keep running after their last step."""
        for cluster in self._open_clusters():
            cluster.keep_job_flow_alive_when_no_steps = self._get_bool_param("KeepJobFlowAliveWhenNoSteps", False)
            cluster.wake()
        return EmptyResult()

    def put_auto_termination_policy(self) -> ActionResult:
        """Set the idle timeout of a cluster in seconds. AWS requires at least 60; here it may be less, for tests."""
        return self._set_idle_timeout(self._idle_timeout())

    def get_auto_termination_policy(self) -> ActionResult:
        """Return the auto-termination policy, or an empty response if there is none."""
        seconds = self._cluster(self._get_param("ClusterId")).idle_timeout_seconds
        return ActionResult({"AutoTerminationPolicy": {"IdleTimeout": seconds}} if seconds else {})

    def remove_auto_termination_policy(self) -> ActionResult:
        """Remove the auto-termination policy."""
        return self._set_idle_timeout(None)

    def _set_idle_timeout(self, seconds: int | None) -> ActionResult:
        cluster = self._cluster(self._get_param("ClusterId"))
        cluster.idle_timeout_seconds = seconds
        cluster.wake()
        return EmptyResult()

    def _idle_timeout(self) -> int | None:
        seconds = self._get_param("AutoTerminationPolicy.IdleTimeout")
        return None if seconds is None else int(seconds)

    def _cluster(self, cluster_id: str) -> LocalCluster:
        cluster: Any = self.backend.describe_cluster(cluster_id)
        if not isinstance(cluster, LocalCluster):
            raise InvalidCluster(cluster_id)
        return cluster

    def _open_clusters(self) -> list[LocalCluster]:
        clusters = [self._cluster(cluster_id) for cluster_id in self._get_param("JobFlowIds", [])]
        if any(cluster.state in ENDING for cluster in clusters):
            raise ValidationException(NOT_MODIFIABLE)
        return clusters

    def _remove_incomplete_cluster(self) -> None:
        """Remove the cluster of a request that failed. moto records a cluster before it validates the whole request."""
        for cluster in list(self.backend.clusters.values()):
            if isinstance(cluster, LocalCluster) and not cluster.launched and cluster.creator == threading.get_ident():
                del self.backend.clusters[cluster.id]

    def _refuse(self, error: ServiceException) -> TYPE_RESPONSE:
        status, headers, body = self.serialized(ActionResult(error))
        return status, *self._enrich_response(headers, body)
