"""The record of a run's clusters, in the run's folder: the requests for clusters, and EMR's answers.

EMR's list of clusters may lag behind, and tags may change. So each cluster has a file, which is written before
RunJobFlow and completed with the cluster's id afterwards. The tasks that end a run's clusters use these ids. If a file
has no id, the answer to its request is not known.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from jobs.errors import NightjarError, reading
from jobs.lake.layout import Run
from jobs.lake.store import Store
from jobs.lake.uri import base_name, join
from nightjar.errors import message_of


@dataclass(frozen=True)
class ClusterRecord:
    """One cluster that was requested, or a cluster of the user's own (`cluster.job_flow_id`)."""

    number: int
    asked: str
    """When the cluster was requested, as a time in ISO 8601 format."""
    cluster_id: str | None = None
    refused: str | None = None
    """Why there is no cluster: EMR's message, or a note that EMR listed no cluster in time."""
    choice: int = 0
    """Number of instance types that the request leaves out of each list of types, because earlier clusters got no
    capacity or failed to bootstrap."""
    borrowed: bool = False
    """Whether the cluster is the user's own. Such a cluster is never ended here."""
    ended: bool = False
    """Whether the run itself has ended the cluster."""
    dropped: bool = False
    """Whether the run no longer uses the cluster: its tasks were cleared, or the cluster was a duplicate."""
    instance_seconds: dict[str, float] = field(default_factory=dict)
    """Running time of the instances in seconds, summed for each instance type and market. Empty until the cluster has
    ended, and if EMR did not report the times."""
    region: str | None = None
    is_embedded: bool = False
    """Whether the cluster is one of the embedded EMR, which costs nothing."""
    used: dict[str, Any] | None = None
    """The fields of a `ClusterUse`: when the instances and the run's steps ran, and the hourly prices. None while
    `instance_seconds` is empty."""

    @property
    def is_open(self) -> bool:
        """Whether the answer to RunJobFlow is not known yet."""
        return self.cluster_id is None and self.refused is None


class ClusterRecords:
    """The records of one run."""

    def __init__(self, run: Run, store: Store) -> None:
        self._folder = run.clusters
        self._store = store

    def read(self, problems: list[str] | None = None) -> list[ClusterRecord]:
        """Return the records in the order of their numbers.

        Args:
            problems: A list that receives a line for each record that cannot be read. If it is None, the first error is
                raised instead.
        """
        found: list[ClusterRecord] = []
        try:
            uris = [file.uri for file in self._store.list_files(self._folder) if file.uri.endswith(".json")]
        except (OSError, NightjarError) as error:
            uris = []
            _report(error, f"the record of clusters in {self._folder} cannot be read", problems)
        for uri in uris:
            try:
                found.append(self._parse(uri))
            except (OSError, NightjarError) as error:
                _report(error, f"{uri} cannot be read", problems)
        return sorted(found, key=lambda record: record.number)

    def add(self, **values: Any) -> ClusterRecord:
        """Write a record with the next free number. Two tasks that run at once never write the same record."""
        number = max((record.number for record in self.read()), default=0) + 1
        while True:
            record = ClusterRecord(number, datetime.now(UTC).isoformat(timespec="seconds"), **values)
            if self._store.publish(self._uri(record), json.dumps(asdict(record)).encode()):
                return record
            number += 1

    def change(self, record: ClusterRecord, **values: Any) -> ClusterRecord:
        """Write a record with the changed `values` in place of its earlier content, and return it."""
        changed = replace(record, **values)
        self._store.write_json(self._uri(changed), asdict(changed))
        return changed

    def _parse(self, uri: str) -> ClusterRecord:
        with reading(uri, "delete it, and look for a cluster of this run in the EMR console"):
            record = ClusterRecord(**json.loads(self._store.read_bytes(uri)))
            if f"{record.number:04d}.json" != base_name(uri):
                raise ValueError(f"its number is {record.number}")
            datetime.fromisoformat(record.asked)
        return record

    def _uri(self, record: ClusterRecord) -> str:
        return join(self._folder, f"{record.number:04d}.json")


def _report(error: Exception, text: str, problems: list[str] | None) -> None:
    if problems is None:
        raise error
    problems.append(f"{text} ({message_of(error)})")
