"""Serve a WSGI application on a socket in a thread."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from jobs.errors import InputError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class StartError(InputError):
    """The embedded EMR cannot start with these settings."""


@contextmanager
def serving(sock: socket.socket, host: str, app: WSGIApplication) -> Iterator[None]:
    """Serve the application for the duration of the block."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # at INFO it logs every request
    wsgi_server: BaseWSGIServer = make_server(
        host, sock.getsockname()[1], app, threaded=True, request_handler=MotoRequestHandler, fd=sock.fileno()
    )
    thread = threading.Thread(target=wsgi_server.serve_forever, args=(0.1,), name="emr-http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        wsgi_server.shutdown()
        wsgi_server.server_close()
        thread.join()
