"""Run the steps of a cluster, as many at a time as its StepConcurrencyLevel allows. Each step runs in a thread."""

from __future__ import annotations

import logging
import threading

from infra.emr.cluster import Cluster
from infra.emr.execution import StepExecution, StepSpec
from infra.emr.logs import step_log_uri
from infra.emr.records import StepRecord

log = logging.getLogger(__name__)


def begin_pending(cluster: Cluster) -> None:
    """Start pending steps, oldest first, up to the cluster's concurrency. The caller must hold `cluster.changed`."""
    for step in cluster.record.steps:
        if step.state == "PENDING" and len(cluster.running) < cluster.record.concurrency:
            _begin(cluster, step)


def _begin(cluster: Cluster, step: StepRecord) -> None:
    record, server = cluster.record, cluster.server
    record.state, record.reason = "RUNNING", {"Message": "Running step"}
    folder = cluster.folder / "steps" / step.id
    jar = step.request["HadoopJarStep"]
    spec = StepSpec(jar.get("Jar", ""), jar.get("Args") or [], _log_uri(cluster, step) or None)
    execution = StepExecution(spec, folder, server)
    step.state, step.started = "RUNNING", server.clock.now()
    cluster.running[step.id] = execution
    log.info("%s %s RUNNING: %s (%s)", record.id, step.id, step.request["Name"], folder)
    cluster.save()
    threading.Thread(target=_execute, args=(cluster, step, execution), name=step.id, daemon=True).start()


def _execute(cluster: Cluster, step: StepRecord, execution: StepExecution) -> None:
    try:
        failure = execution.execute(cluster.spec())
    except Exception as error:
        log.exception("%s %s: internal error of the embedded EMR", cluster.record.id, step.id)
        failure = f"Internal error of the embedded EMR: {error!r}"
    with cluster.changed:
        del cluster.running[step.id]
        _record_end(cluster, step, failure)
        cluster.commit()


def _record_end(cluster: Cluster, step: StepRecord, failure: str | None) -> None:
    """Record how a step ended. After a failure, apply its `ActionOnFailure`."""
    now = cluster.server.clock.now()
    if step.id in cluster.cancelled:
        step.finish("CANCELLED", now, "Cancelled while it was running")
    elif failure is None:
        step.finish("COMPLETED", now)
    else:
        step.failure = {"Reason": "Unknown Error.", "Message": failure}
        if folder := _log_uri(cluster, step):
            step.failure["LogFile"] = f"{folder}/stderr.gz"
        step.finish("FAILED", now, failure)
        _apply_action_on_failure(cluster, step)
    log.info("%s %s %s %s", cluster.record.id, step.id, step.state, step.message)


def _apply_action_on_failure(cluster: Cluster, step: StepRecord) -> None:
    """Apply the `ActionOnFailure` of a failed step. As on EMR, do nothing if steps may run concurrently."""
    if step.action_on_failure == "CONTINUE" or cluster.record.concurrency > 1:
        return
    protected = cluster.record.protected and cluster.record.keep_alive
    if step.action_on_failure == "CANCEL_AND_WAIT" or protected:
        cluster.cancel_steps()
    else:
        cluster.end("STEP_FAILURE", "Shut down as step failed", errors=True)


def _log_uri(cluster: Cluster, step: StepRecord) -> str:
    record = cluster.record
    return step_log_uri(record.log_uri, record.id, step.id) if record.log_uri else ""
