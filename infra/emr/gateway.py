"""S3 for the hosts of a YARN cluster, served at this machine's address on the bridge that connects the hosts.

The hosts can reach S3, but not the EMR API. Anyone who can call EMR can run commands as the user of the server, and
processes on a host must only have the rights of their own unprivileged user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import create_backend_app

from infra.emr.app import MOTO_PREFIX, App
from infra.emr.control import PREFIX
from infra.emr.faults import Faults
from infra.emr.serving import serving
from infra.sockets import listen

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@contextmanager
def s3_at(address: str, faults: Faults) -> Iterator[str]:
    """Serve S3 at an address for the duration of the block, and yield its URL."""
    with closing(listen(address, 0)) as sock, serving(sock, address, _OnlyS3(faults)):
        yield f"http://{address}:{sock.getsockname()[1]}"


class _OnlyS3:
    """The WSGI application for the hosts. It answers S3 and refuses all other requests."""

    def __init__(self, faults: Faults) -> None:
        self._s3 = App(create_backend_app("s3"), None, _refuse, faults)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_X_AMZ_TARGET" in environ or environ["PATH_INFO"].startswith((PREFIX, MOTO_PREFIX)):
            return _refuse(environ, start_response)
        return self._s3(environ, start_response)


def _refuse(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [b"The hosts of a YARN cluster can only use S3.\n"]
