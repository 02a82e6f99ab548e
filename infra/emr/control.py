"""Control a running embedded EMR from tests: add faults, and move its clock.

control = Control("http://127.0.0.1:5555")
control.fault("throttled", operation="DescribeStep", count=3)
control.fault("dropped-after", operation="RunJobFlow")
control.fault("no-capacity", instance_types=["m6i.*"])
control.fault("unavailable", service="s3", operation="GetObject", match={"Key": "runs/*"}, callers=["step"])
control.advance(900)  # an idle timeout of 15 minutes passes at once
control.clear()
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from infra.direct import OPENER
from jobs.errors import InputError

PREFIX = "/_nightjar/"
"""The start of the paths of the server's own API."""

_TIMEOUT_SECONDS = 60.0


class Control:
    """A client for the faults, the counts of calls and the clock of the server at `endpoint_url`."""

    def __init__(self, endpoint_url: str) -> None:
        self._url = endpoint_url.rstrip("/") + PREFIX

    def fault(self, kind: str, **fields: Any) -> str:
        """Add a fault and return its id. The kinds and their fields are in `infra/emr/faults.py`.

        Raises:
            InputError: if the kind or a field is wrong.
        """
        return str(self._ask("POST", "faults", {"kind": kind, **fields})["Fault"]["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Return all faults, oldest first. `hits` is how many calls or clusters a fault has hit."""
        return list(self._ask("GET", "faults")["Faults"])

    def hits(self, fault_id: str) -> int:
        """Return how many calls or clusters a fault has hit."""
        return int(next(fault["hits"] for fault in self.faults() if fault["id"] == fault_id))

    def clear(self, fault_id: str | None = None) -> None:
        """Remove one fault, or all. If a fault has already hit a cluster, its effect there remains."""
        self._ask("DELETE", f"faults/{fault_id}" if fault_id else "faults")

    def calls(self) -> list[dict[str, Any]]:
        """Return how often each call of the AWS API was made: `service`, `operation`, `caller` and `count`."""
        return list(self._ask("GET", "calls")["Calls"])

    def forget_calls(self) -> None:
        """Reset the counts of calls to 0."""
        self._ask("DELETE", "calls")

    def advance(self, seconds: float) -> None:
        """Move the server's clock forward."""
        self._ask("POST", "clock", {"advance": seconds})

    def speed(self, factor: float) -> None:
        """Let the server's clock run `factor` times as fast as this machine's."""
        self._ask("POST", "clock", {"speed": factor})

    def now(self) -> float:
        """Return the time of the server's clock, in seconds since 1970."""
        return float(self._ask("GET", "clock")["Now"])

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, method=method)  # noqa: S310 - the server's own URL
        try:
            with OPENER.open(request, timeout=_TIMEOUT_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise InputError(str(json.load(error).get("Error", error))) from None
