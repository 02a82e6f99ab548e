"""Hosts for YARN: network namespaces on a bridge, with addresses in 198.18.0.0/24, a range reserved for tests.

All network devices and namespaces that are made here have names that begin with ``njy``, and all files are in `WORK`.
Nothing else on this machine is changed. A lock file ensures that only one program at a time has hosts. If a program
is killed, the next one removes its hosts and files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from jobs.errors import InputError, NightjarError

NAME = "njy"
NETWORK = "198.18.0"
GATEWAY = f"{NETWORK}.1"
"""The address of this machine on the bridge."""
MOST_HOSTS = 64
WORK = Path("/var/tmp/nightjar-yarn")  # noqa: S108 - `acquire` checks that it is root's
"""Folder for all files of the hosts. It is emptied at the start and at the end."""
_PROGRAMS = ("ip", "mount", "setpriv", "unshare", "hostname")
SWITCH = f"{NAME}-switch"
"""The network namespace of the bridge. This machine's firewall rules, also those of Docker, do not apply there."""
_FIRST = 10
_KILL_SECONDS = 10.0


class HostError(NightjarError):
    """A host, or a daemon on it, could not be started or ended."""


def check_machine() -> None:
    """Raise an `InputError` if this machine cannot have hosts. Hosts need Linux, root and namespaces."""
    if sys.platform != "linux":
        raise InputError("executors=yarn: needs Linux, for network namespaces; use executors=processes here")
    if os.geteuid() != 0:
        raise InputError("executors=yarn: needs root, for network namespaces; use sudo, or executors=processes")
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        raise InputError(
            f"executors=yarn: {', '.join(missing)} not found; install the packages iproute2 and util-linux"
        )
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "true"], capture_output=True, text=True, timeout=30, check=False
    )
    if tried.returncode:
        raise InputError(
            f"executors=yarn: {tried.stderr.strip()}: this machine does not let root make namespaces; give the"
            " container the capabilities SYS_ADMIN and NET_ADMIN, or use executors=processes"
        )


def namespace(number: int) -> str:
    """Return the name of a host's network namespace. Its veth device at the bridge has the same name."""
    return f"{NAME}-{number}"


def address(number: int) -> str:
    """Return a host's address."""
    return f"{NETWORK}.{_FIRST + number}"


def host_name(number: int) -> str:
    """Return the name by which the other hosts reach a host."""
    return f"node-{number}"


def acquire(give_up: Callable[[], bool]) -> IO[str] | None:
    """Wait until no other program has hosts, and return the open lock file. Return None if `give_up` returns true."""
    with suppress(FileExistsError):
        WORK.mkdir(mode=0o755)
    found = WORK.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise HostError(f"{WORK}: is not a folder that only root can write; remove it")
    lock = (WORK / "lock").open("a")
    while not give_up():
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(0.5)
    lock.close()
    return None


def clean() -> None:
    """Remove all hosts with their processes and files, and the bridge. The caller must hold the lock of `acquire`."""
    for name in namespaces():
        _kill_all(name)
        _try("netns", "del", name)
    _try("link", "del", NAME)
    for entry in WORK.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != "lock":
            entry.unlink()


def namespaces() -> list[str]:
    """Return the names of the network namespaces of all hosts and of the bridge."""
    names = [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]
    return [name for name in names if name.startswith(f"{NAME}-")]


def make_bridge() -> None:
    """Make the bridge, and give this machine the address `GATEWAY` on it."""
    if f" {NETWORK}." in _ip("-4", "route", "show"):
        raise HostError(
            f"{NETWORK}.0/24: this machine has a route to these addresses already; remove the route, or use"
            " executors=processes"
        )
    _ip("netns", "add", SWITCH)
    _ip("-n", SWITCH, "link", "add", NAME, "type", "bridge")
    _ip("-n", SWITCH, "link", "set", NAME, "up")
    _ip("link", "add", NAME, "type", "veth", "peer", "name", f"{NAME}-up", "netns", SWITCH)
    _ip("-n", SWITCH, "link", "set", f"{NAME}-up", "master", NAME, "up")
    _ip("addr", "add", f"{GATEWAY}/24", "dev", NAME)
    _ip("link", "set", NAME, "up")


def add(number: int) -> None:
    """Make a host, and connect it to the bridge by a veth pair, which acts as its network cable."""
    name = namespace(number)
    _ip("netns", "add", name)
    _ip("-n", SWITCH, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", SWITCH, "link", "set", name, "master", NAME, "up")
    _ip("-n", name, "addr", "add", f"{address(number)}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")


def remove(number: int) -> None:
    """Kill all processes on a host, and remove the host."""
    kill(number)
    _try("-n", SWITCH, "link", "del", namespace(number))
    _try("netns", "del", namespace(number))


def cut(number: int) -> None:
    """Disconnect a host's network cable. The host's processes go on, but no other host can reach them."""
    _ip("-n", SWITCH, "link", "set", namespace(number), "down")


def mend(number: int) -> None:
    """Reconnect a host's network cable to the bridge."""
    _ip("-n", SWITCH, "link", "set", namespace(number), "up")


def processes(number: int) -> list[int]:
    """Return the ids of the processes on a host."""
    return _processes(namespace(number))


def kill(number: int) -> None:
    """Kill all processes on a host, as a loss of power does."""
    _kill_all(namespace(number))


def _processes(name: str) -> list[int]:
    return [int(pid) for pid in _ip("netns", "pids", name).split()]


def _kill_all(name: str) -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while found := _processes(name):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise HostError(f"{name}: processes {found} have not ended {_KILL_SECONDS:.0f} s after SIGKILL")
        time.sleep(0.05)


def inside(number: int, command: list[str]) -> list[str]:
    """Return a command that runs `command` as root on a host, in new mount and UTS namespaces."""
    return ["ip", "netns", "exec", namespace(number), "unshare", "--uts", "--mount", *command]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise HostError(f"ip {' '.join(arguments)}: {reason[-1] if reason else done.returncode}")
    return done.stdout


def _try(*arguments: str) -> None:
    with suppress(HostError):
        _ip(*arguments)
