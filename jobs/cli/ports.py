"""Ports of this machine for servers that start some seconds after their port was chosen."""

from __future__ import annotations

import random
import socket

from jobs.errors import InputError

_CHOICES = range(20_000, 32_768)
"""Systems give higher ports to outgoing connections, so that a port that was free a moment ago may be taken."""


def free_port(port: int) -> int:
    """Return `port` if it is free on loopback, or any free port for 0. A taken port is an `InputError`."""
    candidates = [port] if port else random.SystemRandom().sample(_CHOICES, 100)
    for candidate in candidates:
        try:
            with socket.create_server(("127.0.0.1", candidate)):
                return candidate
        except (OSError, OverflowError) as error:
            cause = str(getattr(error, "strerror", None) or error).partition(" (")[0]  # Python appends the address
    raise InputError(f"port {candidate} cannot be used ({cause}); choose another, or 0 for any free one")
