"""Sockets that servers of this project listen on."""

from __future__ import annotations

import socket

from jobs.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 chooses a free one."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python appends the address, which the message has already
        raise InputError(f"cannot listen on {host} port {port}: {reason}; choose another port") from error
