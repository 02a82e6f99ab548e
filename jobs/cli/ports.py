"""Chooses a free port of this machine for a server that starts some seconds later."""

from __future__ import annotations

import random
import socket

from jobs.errors import InputError

_CHOICES = range(20_000, 32_768)
"""The ports to choose from. Higher ports are left out, because the system uses them for outgoing connections."""


def free_port(port: int) -> int:
    """Return `port` if it is free on the loopback interface. For 0, return any free port.

    Raises:
        InputError: if the port is taken.
    """
    candidates = [port] if port else random.SystemRandom().sample(_CHOICES, 100)
    for candidate in candidates:
        try:
            with socket.create_server(("127.0.0.1", candidate)):
                return candidate
        except (OSError, OverflowError) as error:
            cause = str(getattr(error, "strerror", None) or error).partition(" (")[0]  # Python appends the address
    raise InputError(f"port {candidate} cannot be used ({cause}); choose another, or 0 for any free one")
