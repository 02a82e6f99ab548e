"""The embedded EMR's own API, at `/_nightjar/`: faults, the clock, and the notices of spot instances.

    GET    /_nightjar/faults        all faults
    POST   /_nightjar/faults        add a fault; the body is its fields in JSON
    DELETE /_nightjar/faults        remove all faults
    DELETE /_nightjar/faults/f-1    remove one fault
    GET    /_nightjar/calls         how often each call of the AWS API was made: service, operation, caller, count
    DELETE /_nightjar/calls         reset the counts to 0
    GET    /_nightjar/clock         the time and the speed of the clock
    POST   /_nightjar/clock         {"advance": seconds} or {"speed": factor}

    GET    /_nightjar/clusters/<id>/latest/meta-data/spot/instance-action

The last path returns what EC2's instance metadata returns on a spot instance that will be interrupted. The status
is 404 if no instance has a notice. A step's variable AWS_EC2_METADATA_SERVICE_ENDPOINT has the URL up to `/latest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infra.emr.answers import send_json
from infra.emr.calls import read_json
from infra.emr.clock import Clock
from infra.emr.control import PREFIX
from infra.emr.faults import Faults, parse
from jobs.errors import InputError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_NOTICE_PATH = ["latest", "meta-data", "spot", "instance-action"]


class ControlApi:
    """The WSGI application for the paths that start with `PREFIX`."""

    def __init__(self, faults: Faults, clock: Clock, notice: Callable[[str], float | None]) -> None:
        self._faults = faults
        self._clock = clock
        self._notice = notice
        """A function of a cluster's id. It returns the time at which the cluster's next spot instance will be lost, or
        None if no instance has a notice."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. For wrong input, the response has status 400 and a message of one line."""
        try:
            status, value = self._answer(environ)
        except InputError as error:
            status, value = 400, {"Error": str(error)}
        return send_json(start_response, value, status)

    def _answer(self, environ: WSGIEnvironment) -> tuple[int, Any]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(PREFIX)
        what, *rest = path.strip("/").split("/")
        if what == "faults" and len(rest) <= 1:
            return self._answer_faults(method, rest[0] if rest else None, read_json(environ))
        if what == "calls" and not rest:
            return self._answer_calls(method)
        if what == "clock" and not rest:
            return self._answer_clock(method, read_json(environ))
        if what == "clusters" and rest[1:] == _NOTICE_PATH:
            return self._answer_notice(rest[0])
        return 404, {"Error": f"{PREFIX}{path} does not exist; use {PREFIX}faults, {PREFIX}calls or {PREFIX}clock"}

    def _answer_faults(self, method: str, fault_id: str | None, body: Mapping[str, Any]) -> tuple[int, Any]:
        if method == "GET" and fault_id is None:
            return 200, {"Faults": self._faults.answers()}
        if method == "POST" and fault_id is None:
            return 201, {"Fault": self._faults.add(parse(body), self._clock.now()).answer()}
        if method == "DELETE":
            removed = self._faults.remove(fault_id)
            if fault_id is not None and not removed:
                return 404, {"Error": f"fault {fault_id} does not exist; list all faults with GET {PREFIX}faults"}
            return 200, {"Removed": removed}
        return 405, {
            "Error": f"faults: method {method} is not supported; use GET, POST or DELETE (for one fault: DELETE)"
        }

    def _answer_calls(self, method: str) -> tuple[int, Any]:
        if method == "DELETE":
            self._faults.forget_calls()
        elif method != "GET":
            return 405, {"Error": f"calls: method {method} is not supported; use GET or DELETE"}
        return 200, {"Calls": self._faults.calls()}

    def _answer_clock(self, method: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if method == "POST":
            if not body or not set(body) <= {"advance", "speed"}:
                raise InputError(f"clock: give 'advance' in seconds, or 'speed' as a factor, not {sorted(body)}")
            for name, value in body.items():
                if type(value) not in (int, float):
                    raise InputError(f"clock: {name} is {value!r:.80}; use a number")
                self._clock.advance(value) if name == "advance" else self._clock.set_speed(value)
        elif method != "GET":
            return 405, {"Error": f"clock: method {method} is not supported; use GET or POST"}
        return 200, {"Now": self._clock.now(), "Speed": self._clock.speed}

    def _answer_notice(self, cluster_id: str) -> tuple[int, Any]:
        lost = self._notice(cluster_id)
        if lost is None:
            return 404, {"Error": "no spot instance has a notice"}
        return 200, {"action": "terminate", "time": datetime.fromtimestamp(lost, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
