"""Faults that tests inject: what goes wrong, for which calls or clusters, and how often.

A fault is created over HTTP (`infra/emr/control_api.py`) or in Python (`infra/emr/control.py`). Faults of calls change
the answer of the API. Faults of clusters change what happens to a cluster.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from jobs.errors import InputError

CALLERS = ("client", "step", "cluster")
ROLES = ("MASTER", "CORE", "TASK")


@dataclass(frozen=True)
class Kind:
    """A kind of fault: its description, and the names of its fields, except those that all kinds have."""

    text: str
    fields: tuple[str, ...] = ()
    of_clusters: bool = False


KINDS: Mapping[str, Kind] = {
    "throttled": Kind("EMR answers ThrottlingException (400), S3 answers SlowDown (503)"),
    "denied": Kind("EMR answers AccessDeniedException (400), S3 answers AccessDenied (403)"),
    "unavailable": Kind("EMR and S3 answer ServiceUnavailable (503)"),
    "not-found": Kind("EMR answers InvalidRequestException (400), S3 answers NoSuchKey or NoSuchBucket (404)"),
    "error": Kind("the answer is an error with your `status`, `code` and `message`", ("status", "code", "message")),
    "dropped-before": Kind("the connection is closed and the call has no effect"),
    "dropped-after": Kind("the call takes effect, and the connection is closed without an answer"),
    "delayed": Kind("the call takes effect after `seconds`", ("seconds",)),
    "no-capacity": Kind(
        "EC2 has no capacity for `instance_types` in `markets`",
        ("instance_types", "markets", "roles"),
        of_clusters=True,
    ),
    "bootstrap-failure": Kind(
        "bootstrap action `action` ends with `exit_code` on a node with one of `roles`",
        ("action", "exit_code", "roles"),
        of_clusters=True,
    ),
    "slow-start": Kind("the cluster stays in STARTING for `seconds` longer", ("seconds",), of_clusters=True),
    "spot-loss": Kind(
        "`instances` spot instances (0: all) with one of `roles` get a notice `seconds` after the cluster is ready or"
        " the fault is created, whichever is later, and are lost `notice_seconds` after the notice",
        ("instances", "roles", "seconds", "notice_seconds"),
        of_clusters=True,
    ),
}


@dataclass
class Fault:
    """A fault. All patterns are shell patterns such as `Describe*`, and are case-sensitive."""

    kind: str
    """One of `KINDS`."""
    id: str = ""
    service: str = "*"
    """Pattern for the service, such as `emr` or `s3`. Only for faults of calls."""
    operation: str = "*"
    """Pattern for the operation, such as `DescribeStep` or `GetObject`. Only for faults of calls."""
    match: dict[str, str] = field(default_factory=dict)
    """A pattern for each named member of the request, such as `{"ClusterId": "j-*"}` or `{"Steps.Name": "train"}`. For
    faults of clusters, the members are `Id`, `Name` and `Tags.<key>`."""
    callers: list[str] = field(default_factory=lambda: ["client", "step"])
    """Whose calls are hit. Only for faults of calls. `client` is Airflow or any other client. `step` is a process of a
    step or bootstrap action. `cluster` is the server itself, which fetches files and uploads logs."""
    skip: int = 0
    """How many matching calls or clusters are skipped before the first one is hit."""
    count: int | None = 1
    """How many calls or clusters are hit; null means all until the fault is removed. `no-capacity` counts attempts to
    launch instances."""
    hits: int = 0
    """How many calls or clusters have been hit."""
    added: float = 0.0
    """The time when the fault was added, by the clock of the server, in seconds since 1970."""
    status: int = 500
    code: str = "InternalFailure"
    message: str = "An internal error occurred."
    seconds: float = 0.0
    instance_types: list[str] = field(default_factory=lambda: ["*"])
    markets: list[str] = field(default_factory=lambda: ["ON_DEMAND", "SPOT"])
    roles: list[str] = field(default_factory=list)
    action: int = 1
    exit_code: int = 1
    instances: int = 0
    notice_seconds: float = 120.0

    def answer(self) -> dict[str, Any]:
        """Return the fault as the API shows it: the common fields, and those of its kind."""
        kind = KINDS[self.kind]
        hidden = _OWN_FIELDS - set(kind.fields) | (_CALL_FIELDS if kind.of_clusters else set())
        return {name: value for name, value in asdict(self).items() if name not in hidden}

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Return whether each value named in `match` fits its pattern. A list fits if one of its items fits."""
        return all(
            any(fnmatchcase(str(found), pattern) for found in members(values, name))
            for name, pattern in self.match.items()
        )

    def covers(self, instance_type: str, market: str, role: str) -> bool:
        """Return whether this `no-capacity` fault applies to instances of this type, market and role."""
        types = any(fnmatchcase(instance_type, pattern) for pattern in self.instance_types)
        return types and market in self.markets and role in (self.roles or ROLES)


_OWN_FIELDS = {name for kind in KINDS.values() for name in kind.fields}
_CALL_FIELDS = {"service", "operation", "callers"}
_GIVEN = {item.name for item in fields(Fault)} - {"id", "hits", "added"}


def members(values: Any, path: str) -> Iterator[Any]:
    """Yield all values at a dotted path. For example, `Steps.Name` yields the name of each item of the list `Steps`."""
    if isinstance(values, list):
        for item in values:
            yield from members(item, path)
    elif not path:
        yield values
    elif isinstance(values, Mapping):
        if path in values:  # the key of a tag may contain dots
            yield from members(values[path], "")
        else:
            name, _, rest = path.partition(".")
            if name in values:
                yield from members(values[name], rest)


def parse(given: Any) -> Fault:
    """Return the fault that a request body describes. If a field is wrong, raise an `InputError` that names it."""
    if not isinstance(given, dict):
        raise InputError(f'a fault is a JSON object such as {{"kind": "throttled"}}, not {given!r:.80}')
    kind = KINDS.get(str(given.get("kind")))
    if kind is None:
        raise InputError(f"kind {given.get('kind')!r}: use one of {', '.join(KINDS)}")
    allowed = _GIVEN - (_OWN_FIELDS - set(kind.fields)) - (_CALL_FIELDS if kind.of_clusters else set())
    if unknown := set(given) - allowed:
        raise InputError(
            f"a fault of kind {given['kind']} has no field {', '.join(sorted(unknown))};"
            f" use {', '.join(sorted(allowed))}"
        )
    fault = Fault(**given)
    for name in given:
        _check(name, getattr(fault, name))
    return fault


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("service", "operation", "code", "message", "kind"), (lambda value: isinstance(value, str), "a string")
    ),
    "match": (
        lambda value: isinstance(value, dict) and all(isinstance(each, str) for each in value.values()),
        "an object whose values are strings",
    ),
    "callers": (lambda value: _is_choice(value, CALLERS), f"a list of at least one of {', '.join(CALLERS)}"),
    "roles": (lambda value: _is_choice(value, ROLES), f"a list of at least one of {', '.join(ROLES)}"),
    "markets": (lambda value: _is_choice(value, ("ON_DEMAND", "SPOT")), "a list of at least one of ON_DEMAND, SPOT"),
    "instance_types": (
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
        "a list of strings",
    ),
    "count": (lambda value: value is None or _is_whole(value, 1), "a whole number above 0, or null"),
    "status": (lambda value: _is_whole(value, 300) and value < 600, "an HTTP status from 300 to 599"),
    "action": (lambda value: _is_whole(value, 1), "a whole number above 0"),
    "exit_code": (lambda value: _is_whole(value, 1) and value < 256, "a whole number from 1 to 255"),
    **dict.fromkeys(("skip", "instances"), (lambda value: _is_whole(value, 0), "a whole number, 0 or more")),
    **dict.fromkeys(
        ("seconds", "notice_seconds"),
        (lambda value: type(value) in (int, float) and 0 <= value < 1e9, "a number of seconds, 0 or more"),
    ),
}


def _check(name: str, value: Any) -> None:
    valid, wanted = _CHECKS[name]
    if not valid(value):
        raise InputError(f"{name} {value!r:.80}: use {wanted}")


def _is_choice(value: Any, choices: tuple[str, ...]) -> bool:
    return isinstance(value, list) and bool(value) and all(each in choices for each in value)


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


class Faults:
    """The faults of a server. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._faults: dict[str, Fault] = {}
        self._calls: Counter[tuple[str, str, str]] = Counter()
        self.on_change: Callable[[], None] = lambda: None
        """Called after a fault was added, so that clusters check whether it hits them."""

    def add(self, fault: Fault, now: float) -> Fault:
        """Add a fault, set its id and the time when it was added, and return it."""
        with self._lock:
            fault.id, fault.added = f"f-{next(self._numbers)}", now
            self._faults[fault.id] = fault
        self.on_change()
        return fault

    def answers(self) -> list[dict[str, Any]]:
        """Return all faults as JSON objects, oldest first. Faults with no hits left are included."""
        with self._lock:
            return [fault.answer() for fault in self._faults.values()]

    def remove(self, fault_id: str | None = None) -> int:
        """Remove one fault, or all, and return how many were removed."""
        with self._lock:
            if fault_id is not None:
                return 0 if self._faults.pop(fault_id, None) is None else 1
            count = len(self._faults)
            self._faults.clear()
            return count

    def of_call(self, service: str, operation: str, values: Mapping[str, Any], caller: str) -> list[Fault]:
        """Return the faults that hit this call: at most one delay, then at most one other fault.

        The returned faults count one more hit each.
        """

        def hits(fault: Fault) -> bool:
            return (
                not KINDS[fault.kind].of_clusters
                and fnmatchcase(service, fault.service)
                and fnmatchcase(operation, fault.operation)
                and caller in fault.callers
                and fault.matches(values)
            )

        found: list[Fault] = []
        with self._lock:
            for fault in self._faults.values():
                taken = {each.kind == "delayed" for each in found}
                if (fault.kind == "delayed") not in taken and hits(fault) and _use(fault):
                    found.append(fault)
        return sorted(found, key=lambda fault: fault.kind != "delayed")

    def of_cluster(
        self, kind: str, values: Mapping[str, Any], wanted: Callable[[Fault], bool] = lambda _: True
    ) -> list[Fault]:
        """Return the faults of this kind that hit the cluster with these values.

        Faults for which `wanted` returns false are ignored. The returned faults count one more hit each.
        """
        with self._lock:
            return [
                fault
                for fault in self._faults.values()
                if fault.kind == kind and fault.matches(values) and wanted(fault) and _use(fault)
            ]

    def record(self, service: str, operation: str, caller: str) -> None:
        """Count a call, so that a test can list the calls that a program makes."""
        with self._lock:
            self._calls[service, operation, caller] += 1

    def calls(self) -> list[dict[str, Any]]:
        """Return how often each call was made so far."""
        names = ("service", "operation", "caller")
        with self._lock:
            return [{**dict(zip(names, call, strict=True)), "count": n} for call, n in sorted(self._calls.items())]

    def forget_calls(self) -> None:
        """Reset the counts of calls to 0."""
        with self._lock:
            self._calls.clear()


def _use(fault: Fault) -> bool:
    """Return whether the fault hits a call or cluster that matches it. Count the hit, or reduce `skip`."""
    if fault.count is not None and fault.hits >= fault.count:
        return False
    if fault.skip > 0:
        fault.skip -= 1
        return False
    fault.hits += 1
    return True
