"""Write the report of a run, ``stats/report.html``, whatever happened to the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from jobs.errors import NightjarError
from jobs.lake.layout import Lake, Run
from jobs.lake.store import Store
from jobs.results.report import read_report, to_html
from jobs.results.summary import Status, record_failure
from nightjar import aws
from nightjar.emr.causes import explain_end
from nightjar.emr.records import ClusterRecords
from nightjar.errors import AWS_ERRORS

log = logging.getLogger(__name__)


def write_report(run: Run, store: Store, failed: Mapping[str, str | None] | None = None) -> None:
    """Write the report of a run that is over. An error is only logged, so that the statistics are still copied."""
    try:
        report = read_report(run, store, is_over=True)
        is_explained = report.summary.cause is not None and "failure" not in report.stats  # by the failed step itself
        if report.summary.status is not Status.DONE and not is_explained:
            cause = cause_of_cluster(run, store) or _cause_in_airflow(failed or {})
            report = report.failed_by(cause)
            if cause is not None:
                record_failure(run, cause, store)
        store.write_bytes(run.report, to_html(report))
    except Exception as error:
        log.warning("%s: the report could not be written (%s: %s)", run.uri, type(error).__name__, error)
        log.debug("traceback", exc_info=True)


def _cause_in_airflow(failed: Mapping[str, str | None]) -> str | None:
    """Return the first known cause in `failed`, a dict from failed task to cause.

    Return a reference to a task's log if no cause is known, and None if no task failed.
    """
    for task, cause in failed.items():
        if cause:
            return cause if cause.startswith(task) else f"{task}: {cause}"
    return f"the Airflow task {next(iter(failed))} failed; its log has the cause" if failed else None


def cause_of_cluster(run: Run, store: Store) -> str | None:
    """Return why the run's last cluster ended, or why there was none. Return None if this does not explain a failure.

    A cluster that was ended by hand does not explain a failure: EMR reports the same cause, USER_REQUEST, if the
    run ended the cluster itself.
    """
    records = ClusterRecords(run, store).read(problems=[])
    if not records:
        return None
    last = records[-1]
    if last.refused is not None:
        return f"no cluster: {last.refused}"
    if last.cluster_id is None or last.borrowed:
        return None
    try:
        end = explain_end(aws.emr_client(), store, Lake(run.lake_uri), last.cluster_id)
    except (*AWS_ERRORS, NightjarError, OSError) as error:
        log.warning("Cannot find out why cluster %s ended (%s)", last.cluster_id, error)
        return None
    return None if end is None or end.kind == "hand" else str(end)
