"""Who may use the service: anyone on this machine, and elsewhere who has a key."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import InputError, shorten

KEY_VARIABLE = "NIGHTJAR_API_KEY"
_FEWEST_CHARACTERS = 16


def is_loopback(host: str) -> bool:
    """Return whether all addresses of a host are reached from this machine alone.

    Raises:
        InputError: if it has none.
    """
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise InputError(f"--host {shorten(host)}: {reason}; give an address or name of this machine") from None
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def is_local_name(host: str) -> bool:
    """Return whether the header Host names this machine as programs on it do."""
    name = re.sub(r":\d*$", "", host).strip("[]")
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Keys:
    """The keys that clients may show; none means that anyone may use the service."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def admit(self, shown: str) -> bool:
        """Return whether `shown` is a key; the time does not depend on how much of it is right."""
        return max((hmac.compare_digest(key, shown.encode()) for key in self._keys), default=False)


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """Return the keys in the lines of a file, or the one of the variable NIGHTJAR_API_KEY.

    Raises:
        InputError: if the file is not readable or has no key, or a key is short or not printable ASCII.
    """
    if file is None:
        given, where = [environment.get(KEY_VARIABLE, "")], KEY_VARIABLE
    else:
        where = f"--api-key-file {file}"
        try:
            given = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise InputError(f"{where}: cannot be read ({reason}); write one key in each line") from None
    keys = tuple(key for line in given if (key := line.strip()))
    if file is not None and not keys:
        raise InputError(f"{where}: has no key; write one in each line")
    for number, key in enumerate(keys, 1):
        if len(key) < _FEWEST_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"{where}: key {number} is not {_FEWEST_CHARACTERS} printable ASCII characters or more without spaces;"
                " make one with: openssl rand -hex 32"
            )
    return Keys(keys)
