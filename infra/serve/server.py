"""The server of the service: it starts, stops, and waits for what is under way."""

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
"""Time for threads to end; one that still computes while Python ends could make it crash."""
_SEND_SECONDS = 2
"""Time to send the ends of the texts that the time limit of stopping has cut."""


class Server(uvicorn.Server):
    """A server that calls `on_ready` and `on_stop`, and ends with exit code 0 after SIGTERM."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready, self._on_stop = on_ready, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer requests."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait for the requests under way."""
        self._on_stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; uvicorn would send itself a SIGTERM again at the end."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def run(service: Service, sock: socket.socket, drain_seconds: float, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. Texts under way then end after `drain_seconds` at the latest."""
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
