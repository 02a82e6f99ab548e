"""What a disturbed run has left: its clusters before and after the reaper's turn, its steps, and its datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.errors import NightjarError
from jobs.lake.layout import Lake, Run
from jobs.lake.store import Store
from nightjar.emr import requests
from tests.chaos_airflow.plan import Case

ENDED = requests.ENDED_CLUSTER_STATES


@dataclass(frozen=True)
class Result:
    """What a case has left."""

    case: str
    disturbance: str
    struck: bool
    """Whether the disturbance has struck; else the case says nothing."""
    ended: bool
    """Whether the run has ended."""
    green: bool
    continued: bool | None
    """Whether a run that failed succeeded when its tasks were cleared; None for one that had not failed."""
    green_and_alive: bool
    """Whether the run was green while a cluster of it was alive."""
    alive: int
    """Number of clusters that were alive when the run had ended."""
    alive_after_reaper: int
    clusters_at_once: int
    """Largest number of clusters that ran a step of this run at the same time."""
    steps_at_once: int
    """Largest number of attempts at one step that ran at the same time."""
    completed_twice: int
    """Number of steps that completed more than once."""
    incomplete: int
    """Number of outputs that a green run has and that do not verify."""
    cause: str
    """The last line of the log of a run that failed."""
    seconds: float

    @property
    def is_bad(self) -> bool:
        """Whether the run has broken a promise."""
        lost = not self.ended or self.continued is False
        left = (self.green_and_alive, self.alive_after_reaper, self.incomplete, self.completed_twice)
        return lost or any(left) or max(self.clusters_at_once, self.steps_at_once) > 1


def clusters_of(client: Any, name: str) -> list[dict[str, Any]]:
    """Return the clusters that EMR lists under a name."""
    pages = client.get_paginator("list_clusters").paginate()
    return [each for page in pages for each in page["Clusters"] if each["Name"] == name]


def spans_of(client: Any, clusters: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, datetime, datetime]]:
    """Return cluster, name, state, start and end of each attempt at a step that has started."""
    spans = []
    for cluster in clusters:
        for page in client.get_paginator("list_steps").paginate(ClusterId=cluster["Id"]):
            for step in page["Steps"]:
                timeline = step["Status"]["Timeline"]
                if started := timeline.get("StartDateTime"):
                    ended = timeline.get("EndDateTime", datetime.now(UTC))
                    spans.append((cluster["Id"], step["Name"], step["Status"]["State"], started, ended))
    return spans


def most_at_once(spans: Sequence[tuple[str, datetime, datetime]]) -> int:
    """Return the largest number of different names of spans that overlap."""
    starts = [start for _, start, _ in spans]
    return max((len({name for name, start, end in spans if start <= at < end}) for at in starts), default=0)


def take_turn(client: Any, store: Store, run: Run, alive: Sequence[str]) -> int:
    """Let the reaper come after the time to live of the run's clusters; return how many are alive then."""
    # They import Airflow, which needs a home of its own before.
    from nightjar.emr.reaper import reap
    from nightjar.errors import MayStillRunError

    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for cluster_id in alive:
        client.add_tags(ResourceId=cluster_id, Tags=[{"Key": "nightjar:expires", "Value": past}])
    with suppress(MayStillRunError):  # what counts is what is alive
        reap(client, store, Lake(run.lake_uri), run.project, 0.3)
    states = [client.describe_cluster(ClusterId=each)["Cluster"]["Status"]["State"] for each in alive]
    return sum(state not in ENDED for state in states)


def incomplete_outputs(run: Run, store: Store, *, may_be_missing: bool) -> list[str]:
    """Return the datasets and outputs of a run that are not complete, or not there though they must be."""
    try:
        used: dict[Any, str] = store.read_json(run.datasets)
    except FileNotFoundError:
        used = {}
    folders = [Lake(run.lake_uri).dataset(kind, name) for kind, name in used.items()]
    wrong = []
    for folder in [*folders, run.train, run.generate, run.model]:
        if may_be_missing and not store.list_files(folder):
            continue
        try:
            manifest = store.read_manifest(folder)
            if manifest is None:
                wrong.append(folder)
            else:
                store.verify_sizes(folder, manifest)
        except (NightjarError, OSError):
            wrong.append(folder)
    return wrong


@dataclass(frozen=True)
class End:
    """The end of a run, as Airflow shows it."""

    case: Case
    run: Run
    cluster_name: str
    struck: bool
    ended: bool
    green: bool
    cause: str
    seconds: float


def judge(end: End, client: Any, store: Store, go_on: Callable[[], bool]) -> Result:
    """Look at what a run has left, let it go on if it has failed, and return the result.

    Args:
        end: The end of the run.
        client: A client of EMR.
        store: The store of the lake.
        go_on: Clears the run's tasks, and returns whether the run was green then.
    """
    # A run that a user marks as successful need not have outputs, but has no half of one.
    may_be_missing = end.case.disturbance == "marked success"
    left = _look(client, store, end, green=end.green, may_be_missing=may_be_missing)
    green_and_alive = end.green and left["alive"] > 0
    continued = None if end.green or not end.ended else go_on()
    if continued is not None:
        again = _look(client, store, end, green=continued, may_be_missing=False)
        green_and_alive = continued and again["alive"] > 0
        left = {name: max(left[name], again[name]) for name in left}
    if left["alive_after_reaper"]:  # it must not disturb the next case
        client.terminate_job_flows(JobFlowIds=[each["Id"] for each in clusters_of(client, end.cluster_name)])
    return Result(
        case=end.case.name,
        disturbance=end.case.disturbance,
        struck=end.struck,
        ended=end.ended,
        green=end.green,
        continued=continued,
        green_and_alive=green_and_alive,
        cause=end.cause[:500],
        seconds=round(end.seconds, 1),
        **left,
    )


def _look(client: Any, store: Store, end: End, *, green: bool, may_be_missing: bool) -> dict[str, int]:
    """Return what EMR and the lake tell of a run, by the names of a `Result`. The reaper has its turn then."""
    clusters = clusters_of(client, end.cluster_name)
    spans = spans_of(client, clusters)
    alive = [each["Id"] for each in clusters if each["Status"]["State"] not in ENDED]
    completed = Counter(name for _, name, state, _, _ in spans if state == "COMPLETED")
    attempts = [
        most_at_once([(str(number), since, to) for number, (_, name, _, since, to) in enumerate(spans) if name == step])
        for step in {name for _, name, *_ in spans}
    ]
    return {
        "alive": len(alive),
        "alive_after_reaper": take_turn(client, store, end.run, alive),
        "clusters_at_once": most_at_once([(cluster, since, to) for cluster, _, _, since, to in spans]),
        "steps_at_once": max(attempts, default=0),
        "completed_twice": sum(number > 1 for number in completed.values()),
        "incomplete": len(incomplete_outputs(end.run, store, may_be_missing=may_be_missing)) if green else 0,
    }
