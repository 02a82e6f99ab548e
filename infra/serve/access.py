"""Controls who may use the service: clients with an API key or, if there are no keys, clients on this machine."""

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
    """Return whether a server that listens on `host` can be reached only from this machine.

    Raises:
        InputError: if the host has no address.
    """
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise InputError(f"--host {shorten(host)}: {reason}; give an address or name of this machine") from None
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def is_local_name(host: str) -> bool:
    """Return whether a Host header is ``localhost`` or a loopback address, with or without a port."""
    name = re.sub(r":\d*$", "", host).strip("[]")
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Keys:
    """The API keys of the service. A client must send one of them. If the service has no keys, clients send none."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def admit(self, shown: str) -> bool:
        """Return whether `shown` is one of the keys.

        The comparison takes the same time however many characters of `shown` are right, so that its duration does not
        help to guess a key.
        """
        return max((hmac.compare_digest(key, shown.encode()) for key in self._keys), default=False)


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """Return the keys in the lines of a file. Without a file, return the key in the variable NIGHTJAR_API_KEY, if any.

    Raises:
        InputError: if the file is not readable or has no key, or a key is too short or not printable ASCII.
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
                f"{where}: key {number} needs at least {_FEWEST_CHARACTERS} printable ASCII characters and no space;"
                " to make a key, run openssl rand -hex 32"
            )
    return Keys(keys)
