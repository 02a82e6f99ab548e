"""The clusters of one run: create, replace and terminate them.

A run has one cluster at a time. A lost cluster is replaced, at most `MAX_LOST` times. If AWS had no capacity for a
cluster, or its bootstrap action failed, it is replaced by a cluster with other instance types. A cluster is not
replaced if a person or the reaper ended it, or if EMR ended it because the request was wrong.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.config import STEPS, Config
from jobs.lake.layout import Lake
from jobs.lake.store import Store
from nightjar.aws import is_on_aws
from nightjar.emr import clusters, requests, steps
from nightjar.emr.attempts import Attempts
from nightjar.emr.causes import ClusterEnd, explain_end
from nightjar.emr.metering import meter
from nightjar.emr.records import ClusterRecord, ClusterRecords
from nightjar.errors import FinalError, MayStillRunError, UserError, is_refusal, message_of

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

MAX_LOST = 2
"""Maximum number of lost clusters of a run that are replaced."""
SETTLE_SECONDS = 60.0
"""How long a cluster may be missing from EMR's list after RunJobFlow took effect."""


class RunClusters:
    """The clusters of a run, from the record in the lake and from EMR."""

    def __init__(
        self,
        connect: Callable[[], EMRClient],
        store: Store,
        identity: requests.ClusterIdentity,
        poll_seconds: float,
    ) -> None:
        self._connect = connect
        self._store = store
        self._identity = identity
        self._lake = Lake(identity.run.lake_uri)
        self._records = ClusterRecords(identity.run, store)
        self._poll_seconds = poll_seconds
        self.is_asking = False
        """Whether a RunJobFlow request is in progress. If the process ended now, the cluster's id would be lost."""

    @cached_property
    def _client(self) -> EMRClient:
        return self._connect()

    def acquire(self, config: Config, package_uri: str) -> str:
        """Return the id of the run's cluster. Create the cluster if the run has none, without waiting for its start.

        Raises:
            UserError: if EMR refuses the request, or the cluster `cluster.job_flow_id` takes no steps.
            FinalError: if the run's clusters ended for a cause that a new cluster would not fix.
        """
        if config.cluster.job_flow_id:
            return self._borrow(config.cluster.job_flow_id)
        records = [each for each in self._records.read() if not each.dropped and not each.borrowed]
        if over := [each.cluster_id for each in records if each.ended and each.cluster_id]:
            raise FinalError(
                f"this run has ended its cluster {over[-1]}; clear the tasks sweep and create_cluster, and the task of"
                " this step"
            )
        ends = {each.cluster_id: self.explain_end(each.cluster_id) for each in records if each.cluster_id}
        active = [cluster_id for cluster_id, end in ends.items() if end is None] or self._find_unrecorded(records)
        if not active:
            active = [self._create(config, package_uri, _next_choice([end for end in ends.values() if end], config))]
        log.info("The run's cluster is %s", active[0])
        return active[0]

    def recorded_ids(self) -> list[str]:
        """Return the ids of all clusters in the run's record."""
        return [each.cluster_id for each in self._records.read() if each.cluster_id]

    def dropped_ids(self) -> set[str]:
        """Return the ids of the clusters that the run no longer uses."""
        return {each.cluster_id for each in self._records.read() if each.dropped and each.cluster_id}

    def explain_end(self, cluster_id: str) -> ClusterEnd | None:
        """Return why a cluster ended, or None if it can run steps."""
        return explain_end(self._client, self._store, self._lake, cluster_id)

    def end(self, extra_ids: Iterable[str] = (), *, drop: bool = False) -> list[str]:
        """Terminate all of the run's clusters, wait until EMR reports their end, and return their ids.

        These are the clusters in the record, the clusters that EMR lists with the run's name and tags, and those of
        `extra_ids` with the run's tags. A cluster of the user's own is not terminated: only the run's steps on it are
        cancelled.

        Args:
            extra_ids: Ids from another source, in case the record cannot be read.
            drop: Whether the run starts again and no longer uses these clusters.

        Raises:
            MayStillRunError: if a cluster may still run. The message names each such cluster, and each failed look-up.
        """
        problems: list[str] = []
        records = self._records.read(problems)
        borrowed = {each.cluster_id for each in records if each.borrowed and each.cluster_id}
        with clusters.collecting(problems, "cannot find out whether a requested cluster exists"):
            self._await_answers([each for each in records if each.is_open])
        records = self._records.read([])
        known = [each.cluster_id for each in records if each.cluster_id]
        with clusters.collecting(problems, "EMR's list of clusters cannot be read"):
            known += clusters.find_clusters(self._client, self._identity, problems)
        for cluster_id in extra_ids:
            with clusters.collecting(problems, f"cluster {cluster_id} may still run"):
                if cluster_id not in known and self._identity.owns(clusters.describe(self._client, cluster_id)):
                    known.append(cluster_id)
        ids = [each for each in dict.fromkeys(known) if each not in borrowed]
        clusters.terminate_clusters(self._client, ids, self._poll_seconds, problems)
        for cluster_id in sorted(borrowed):
            with clusters.collecting(problems, f"steps on cluster {cluster_id} may still run"):
                for name in STEPS:  # a step that a killed try requested may appear late
                    Attempts(self._client, self._store, self._identity.run, name).find(cluster_id, self._poll_seconds)
                steps.cancel_steps_of_run(self._client, cluster_id, self._identity.run)
        if problems:
            raise MayStillRunError(f"{'; '.join(problems)}; look at them in the EMR console")
        for record in records:
            if not record.borrowed:
                changes = {} if record.used else self._metered(record.cluster_id)
                self._records.change(record, ended=True, dropped=drop or record.dropped, **changes)
        return ids

    def _metered(self, cluster_id: str | None) -> dict[str, Any]:
        """Return the use of a cluster as fields of its record, for the bill. Return {} if EMR does not answer."""
        used = meter(self._client, self._identity.run, cluster_id, self._store) if cluster_id else None
        if used is None:
            return {}
        seconds: dict[str, float] = defaultdict(float)
        for span in used.instances:
            seconds[span.name] += span.overlap(span.started, span.ended)
        rounded = {name: round(each, 1) for name, each in sorted(seconds.items())}
        return {"used": asdict(used), "instance_seconds": rounded, "region": used.region}

    def end_leftovers(self) -> list[str]:
        """Try once more to end clusters that may still run. Return [] if all ended, else a line that names the rest."""
        left: list[str] = []
        records = [each for each in self._records.read(left) if not each.borrowed]
        left += clusters.still_running(self._client, [each.cluster_id for each in records if each.cluster_id])
        left += [
            f"the answer to the request RunJobFlow of {each.asked} is not known" for each in records if each.is_open
        ]
        if not left:
            return []
        log.warning("%s; trying again to end these clusters", "; ".join(left))
        try:
            self.end()
        except MayStillRunError as error:
            return [str(error)]
        return []

    def _borrow(self, cluster_id: str) -> str:
        if end := self.explain_end(cluster_id):
            raise UserError(f"cluster.job_flow_id: {end}; name a cluster that runs, or leave the setting empty")
        if cluster_id not in {each.cluster_id for each in self._records.read() if each.borrowed}:
            self._records.add(cluster_id=cluster_id, borrowed=True)
        log.info("Using your own cluster %s, which this run will not end", cluster_id)
        return cluster_id

    def _find_unrecorded(self, records: Sequence[ClusterRecord]) -> list[str]:
        """Return a list with the id of the run's active cluster that EMR lists but the record does not. Else return [].

        Such a cluster exists if EMR's answer or the record was lost.
        """
        self._await_answers([each for each in records if each.is_open])
        listed = [each for each in clusters.find_clusters(self._client, self._identity) if not self.explain_end(each)]
        return self._keep_one(listed[0], listed) if listed else []

    def _await_answers(self, waiting: Sequence[ClusterRecord]) -> None:
        """Wait until each open request has an answer: another process records the answer, or EMR lists the cluster.

        A request that has no answer after `SETTLE_SECONDS` is recorded as one that had no effect.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while waiting:
            recorded = {each.number: each for each in self._records.read([])}
            waiting = [each for each in waiting if recorded.get(each.number, each).is_open]
            taken = {each.cluster_id for each in recorded.values()}
            for cluster_id in clusters.find_clusters(self._client, self._identity):
                if waiting and cluster_id not in taken:
                    answered, *waiting = waiting
                    log.info("The request RunJobFlow of %s has created cluster %s", answered.asked, cluster_id)
                    self._records.change(answered, cluster_id=cluster_id)
            if not waiting or time.monotonic() > deadline:
                break
            log.info("Waiting for the answer to the request RunJobFlow of %s", waiting[0].asked)
            time.sleep(min(self._poll_seconds, 5.0))
        for record in waiting:
            seen = f"no answer, and EMR listed no such cluster for {SETTLE_SECONDS:g} s"
            log.warning("The request RunJobFlow of %s counts as failed: %s", record.asked, seen)
            self._records.change(record, refused=seen)

    def _create(self, config: Config, package_uri: str, choice: int) -> str:
        _warn_of_time_to_live(config)
        region = self._client.meta.region_name
        record = self._add_record(choice=choice, region=region)
        chosen = requests.without_types(config, choice)
        request = requests.run_job_flow(chosen, self._identity, datetime.now(UTC), package_uri, region)
        self.is_asking = True
        try:
            created = str(self._client.run_job_flow(**request)["JobFlowId"])
            self._records.change(record, cluster_id=created)
        except ClientError as error:
            if not is_refusal(error):
                raise
            self._records.change(record, refused=message_of(error))
            raise UserError(f"EMR refuses the cluster ({message_of(error)}); check the settings cluster.*") from None
        finally:
            self.is_asking = False
        log.info("Submitted cluster %s (%s)", created, self._identity.name)
        # RunJobFlow has no client token, so a request that boto3 repeated may have created a second cluster.
        listed = clusters.find_clusters(self._client, self._identity)
        self._keep_one(created, [each for each in listed if not self.explain_end(each)])
        return created

    def _add_record(self, **fields: Any) -> ClusterRecord:
        """Add a file for one more cluster to the record of the run's clusters, and return its content."""
        return self._records.add(is_embedded=not is_on_aws(self._client.meta.endpoint_url), **fields)

    def _keep_one(self, kept: str, listed: Sequence[str]) -> list[str]:
        """Terminate all `listed` clusters except `kept`, and return [kept]. Add missing clusters to the record."""
        recorded = {each.cluster_id: each for each in self._records.read()}
        if kept not in recorded:
            self._add_record(cluster_id=kept)
        for cluster_id in listed:
            if cluster_id != kept:
                log.warning("Keeping cluster %s; terminating its duplicate %s", kept, cluster_id)
                record = recorded.get(cluster_id) or self._add_record(cluster_id=cluster_id)
                clusters.request_termination(self._client, cluster_id)
                self._records.change(record, dropped=True)
        return [kept]


def _warn_of_time_to_live(config: Config) -> None:
    needed, given = requests.time_to_live(config).total_seconds() / 3600, config.cluster.time_to_live_hours
    if given and given < needed:
        log.warning("cluster.time_to_live_hours is %g, less than the steps may take; it is raised to %g", given, needed)


def _next_choice(ends: Sequence[ClusterEnd], config: Config) -> int:
    """Return how many instance types the request for the next cluster leaves out.

    Raise FinalError if no further cluster may be created.
    """
    for end in ends:
        if not end.is_replaceable:
            raise FinalError(str(end))
    choice = sum(end.needs_other_instances for end in ends)
    lost = len(ends) - choice
    if choice >= requests.num_choices(config.cluster) or lost > MAX_LOST:
        raise FinalError(f"{ends[0]}; {len(ends)} clusters of this run ended, and no further cluster is created")
    for end in ends[-1:]:
        log.warning("%s; creating a new cluster%s", end, " with other instance types" if choice else "")
    return choice
