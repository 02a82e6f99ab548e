"""The server's WSGI application: it applies faults, and passes calls to EMR's API, to moto or to the control API."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from infra.emr.answers import Problem, fault_problem, send_problem
from infra.emr.calls import EMR_TARGET, Call, drain, identify
from infra.emr.control import PREFIX
from infra.emr.faults import Fault, Faults

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from infra.emr.api import EmrApi

MOTO_PREFIX = "/moto-api"
RESET_PATH = f"{MOTO_PREFIX}/reset"


class App:
    """The server's WSGI application. It passes EMR calls to `emr`, and paths below `PREFIX` to `control`.

    All other calls go to `moto`. If `emr` is None, EMR calls go to `moto` as well.
    """

    def __init__(self, moto: WSGIApplication, emr: EmrApi | None, control: WSGIApplication, faults: Faults) -> None:
        self._moto = moto
        self._emr = emr
        self._control = control
        self._faults = faults

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. Refuse requests from web pages, because they could run commands on this machine."""
        if "HTTP_ORIGIN" in environ:  # browsers send this header, AWS SDKs do not
            start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Connection", "close")])
            return [b"The embedded EMR refuses requests from web pages.\n"]
        if environ["PATH_INFO"].startswith(PREFIX):
            return self._control(environ, start_response)
        if environ["PATH_INFO"] == RESET_PATH and environ["REQUEST_METHOD"] == "POST" and self._emr is not None:
            self._emr.reset()
            self._faults.remove()
            self._faults.forget_calls()
        if environ["PATH_INFO"].startswith(MOTO_PREFIX):
            return self._moto(environ, start_response)
        call = identify(environ)
        self._faults.record(call.service, call.operation, call.caller)
        for fault in self._faults.of_call(call.service, call.operation, call.values, call.caller):
            if fault.kind == "delayed":
                time.sleep(fault.seconds)
            elif fault.kind.startswith("dropped"):
                self._drop(environ, takes_effect=fault.kind == "dropped-after")
            else:
                drain(environ)
                has_body = environ["REQUEST_METHOD"] != "HEAD"
                return send_problem(start_response, call, _problem(fault, call), has_body=has_body)
        return self._route(environ, start_response)

    def _route(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        emr = self._emr if target.startswith(EMR_TARGET) else None
        if emr is None or emr.is_moto_action(target.removeprefix(EMR_TARGET)):
            return self._moto(environ, start_response)
        return emr(environ, start_response)

    def _drop(self, environ: WSGIEnvironment, *, takes_effect: bool) -> None:
        """Close the connection without an answer. If `takes_effect` is true, execute the call first."""
        if takes_effect:
            for _ in self._route(environ, _ignore):
                pass
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("dropped by a fault")  # werkzeug handles this like a client that has disconnected


def _problem(fault: Fault, call: Call) -> Problem:
    if fault.kind == "error":
        return Problem(fault.status, fault.code, fault.message)
    return fault_problem(fault.kind, call)


def _ignore(*_: object) -> Callable[[bytes], object]:
    return lambda _: None
