"""The API of the emulator itself, at `/_nightjar/`: faults, the clock, and the notices of spot instances.

    GET    /_nightjar/faults        all faults
    POST   /_nightjar/faults        add a fault; the body is its fields in JSON
    DELETE /_nightjar/faults        remove all faults
    DELETE /_nightjar/faults/f-1    remove one
    GET    /_nightjar/calls         the calls of the AWS API so far: service, operation, caller, and how many
    DELETE /_nightjar/calls         count from 0 again
    GET    /_nightjar/clock         the time and the speed of the clock
    POST   /_nightjar/clock         {"advance": seconds} or {"speed": factor}

    GET    /_nightjar/clusters/<id>/latest/meta-data/spot/instance-action

The last one is what EC2's instance metadata says on a spot instance that will be taken away: 404 until then. Steps find
the part before `/latest` in AWS_EC2_METADATA_SERVICE_ENDPOINT.
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
        """Returns when the next spot instance of a cluster will be lost, if a notice was given."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. Wrong input is one clear line, with status 400."""
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
        return 404, {"Error": f"{PREFIX}{path}: there are {PREFIX}faults, {PREFIX}calls and {PREFIX}clock"}

    def _answer_faults(self, method: str, fault_id: str | None, body: Mapping[str, Any]) -> tuple[int, Any]:
        if method == "GET" and fault_id is None:
            return 200, {"Faults": self._faults.answers()}
        if method == "POST" and fault_id is None:
            return 201, {"Fault": self._faults.add(parse(body), self._clock.now()).answer()}
        if method == "DELETE":
            removed = self._faults.remove(fault_id)
            if fault_id is not None and not removed:
                return 404, {"Error": f"no fault {fault_id}"}
            return 200, {"Removed": removed}
        return 405, {"Error": f"faults have no {method}"}

    def _answer_calls(self, method: str) -> tuple[int, Any]:
        if method == "DELETE":
            self._faults.forget_calls()
        elif method != "GET":
            return 405, {"Error": f"calls have no {method}"}
        return 200, {"Calls": self._faults.calls()}

    def _answer_clock(self, method: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if method == "POST":
            if not body or not set(body) <= {"advance", "speed"}:
                raise InputError(f"clock: give 'advance' in seconds, or 'speed' as a factor, not {sorted(body)}")
            for name, value in body.items():
                if type(value) not in (int, float):
                    raise InputError(f"clock: {name} {value!r:.80}; use a number")
                self._clock.advance(value) if name == "advance" else self._clock.set_speed(value)
        elif method != "GET":
            return 405, {"Error": f"the clock has no {method}"}
        return 200, {"Now": self._clock.now(), "Speed": self._clock.speed}

    def _answer_notice(self, cluster_id: str) -> tuple[int, Any]:
        lost = self._notice(cluster_id)
        if lost is None:
            return 404, {"Error": "no spot instance has a notice"}
        return 200, {"action": "terminate", "time": datetime.fromtimestamp(lost, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
