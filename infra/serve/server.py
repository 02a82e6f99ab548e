"""The HTTP server of the service. When it stops, it waits for requests in progress."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from infra.serve.app import Service

MOST_CONNECTIONS = 1000
_END_SECONDS = 5
"""Seconds to wait for threads before Python exits. A thread that still computes then could crash the process."""
_SEND_SECONDS = 2
"""Seconds to send the last text of requests that end early because the server stops."""


class Server(uvicorn.Server):
    """A uvicorn server that calls `on_ready` when it answers requests, and `on_stop` when it begins to stop.

    After SIGTERM the process ends with exit code 0.
    """

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready, self._on_stop = on_ready, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer requests."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait for requests in progress."""
        self._on_stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop the server. SIGTERM is not passed to uvicorn, which would send it to this process again at the end."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def run(service: Service, sock: socket.socket, drain_seconds: float, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. Requests in progress may then go on for at most `drain_seconds` seconds."""
    config = uvicorn.Config(
        service.app(),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(drain_seconds) + _SEND_SECONDS,
    )
    try:
        Server(config, on_ready, lambda: service.stop(drain_seconds)).run([sock])
    finally:
        service.end(_END_SECONDS)
