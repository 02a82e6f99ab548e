"""A lock on a run, with an owner and an expiry, so that no two programs write into a run's folder at the same time.

The lock is a small file in the run's folder. Its holder renews it; a lock that is not renewed expires. All changes are
conditional writes, so only one of several programs that try to take a lock at the same time succeeds.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from jobs.errors import InputError, NightjarError, reading, shorten
from jobs.lake.layout import Run
from jobs.lake.store import ENVIRONMENT, Store

LOCK_SECONDS = 60.0
"""Seconds after which a lock expires if it is not renewed. The holder renews its lock every third of this time. The
clocks of the machines may differ by at most a third of this time."""
_POLL_SECONDS = 1.0

log = logging.getLogger(__name__)


class RunInUseError(InputError):
    """Another program works on the same run."""


@dataclass(frozen=True)
class Lock:
    """The content of a lock's file."""

    owner: str
    """The cluster or the process for which the lock is held.

    A process that works for the same owner, such as a retry on the same cluster, may take the lock over at once.
    """
    holder: str
    """A random name of the process that holds the lock."""
    machine: str
    pid: int
    expires: float
    """Time of expiry in seconds since 1970; 0 after the holder has released the lock."""

    @classmethod
    def of_this_process(cls, owner: str | None, seconds: float) -> Lock:
        """Return a new lock for this process to write. Without `owner`, the process itself is the owner."""
        machine, pid = this_machine(), os.getpid()
        return cls(owner or f"process {pid} on {machine}", uuid.uuid4().hex, machine, pid, time.time() + seconds)

    def is_free(self, owner: str | None, now: float) -> bool:
        """Return whether a process that works for `owner` may take the lock over at the time `now`.

        That is so if the lock was released or has expired, if it is held for the same owner, or if the process that
        holds it ran on this machine and has ended.
        """
        return (
            self.expires <= now or self.owner == owner or (self.machine == this_machine() and not _is_alive(self.pid))
        )


@contextmanager
def locked(
    run: Run,
    owner: str | None = None,
    *,
    lost: Callable[[str], None] = lambda _: None,
    seconds: float = LOCK_SECONDS,
    store: Store | None = None,
) -> Iterator[Lock]:
    """Hold the lock of a run while the block runs.

    Args:
        run: The run.
        owner: Owner of the lock, by default this process. An existing lock of the same owner is taken over at once.
        lost: Function that is called with a line of text, in another thread, if another program took the lock over.
        seconds: Time until the lock expires if this process is killed.
        store: The store of the lake. By default, a store whose retries end before the lock expires.

    Raises:
        RunInUseError: if another program holds the lock and renews it.
    """
    store = store or Store(retry_seconds=seconds / 3)
    lock = _acquire(run, owner, seconds, store)
    is_over = threading.Event()
    thread = threading.Thread(target=_renew, args=(run, lock, seconds, store, lost, is_over), daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        is_over.set()
        thread.join(seconds)
        _release(run, lock, store)


def read_lock(run: Run, store: Store = ENVIRONMENT) -> tuple[Lock | None, str]:
    """Return the lock of a run and the version of its file. Return None and "" if there is no lock."""
    try:
        data, version = store.read_version(run.lock)
    except FileNotFoundError:
        return None, ""
    with reading(run.lock, "delete it if no program works on this run"):
        values = json.loads(data)
        lock = Lock(**{field.name: values[field.name] for field in fields(Lock)})
        return replace(lock, expires=float(lock.expires), pid=int(lock.pid)), version


def is_held(run: Run, now: float, store: Store = ENVIRONMENT) -> bool:
    """Return whether a program works on a run: whether the lock is held at the time `now`, in seconds since 1970."""
    lock, _ = read_lock(run, store)
    return lock is not None and not lock.is_free(None, now)


def _acquire(run: Run, owner: str | None, seconds: float, store: Store) -> Lock:
    """Wait until the lock is free, and take it.

    Raises:
        RunInUseError: if the holder renews the lock, or is a running process of this machine.
    """
    lock = Lock.of_this_process(owner, seconds)
    seen: Lock | None = None
    while True:
        found, version = read_lock(run, store)
        mine = replace(lock, expires=time.time() + seconds)
        if found is None:
            if store.publish(run.lock, _to_json(mine)):
                return mine
        elif found.is_free(owner, time.time()):
            with suppress(FileNotFoundError):  # the file was deleted in the meantime
                if store.replace(run.lock, _to_json(mine), version):
                    return mine
        elif found.machine == lock.machine or (seen and seen != found):
            raise RunInUseError(
                f"{run.uri}: in use by {shorten(found.owner)} ({shorten(found.machine)}, process {found.pid});"
                " wait until that process has ended, or choose another run id"
            )
        else:
            if seen is None:
                log.info(
                    "the run's lock is held by %s; waiting to see whether the lock is renewed or expires", found.owner
                )
            seen = found
            time.sleep(_POLL_SECONDS)


def _renew(
    run: Run, lock: Lock, seconds: float, store: Store, lost: Callable[[str], None], is_over: threading.Event
) -> None:
    """Renew the lock until `is_over` is set, or until another program has taken the lock over."""
    while not is_over.wait(seconds / 3):
        try:
            found, version = read_lock(run, store)
            if found is None or found.holder != lock.holder:
                taker = found.owner if found else "a program that deleted it"
                lost(f"{run.uri}: its lock was taken over by {taker}")
                return
            store.replace(run.lock, _to_json(replace(lock, expires=time.time() + seconds)), version)
        except (OSError, NightjarError) as error:
            log.warning("%s: the lock could not be renewed (%s); trying again soon", run.lock, error)


def _release(run: Run, lock: Lock, store: Store) -> None:
    """Let the lock expire now, unless another program holds it. Only log a failure, since the lock expires anyway."""
    try:
        found, version = read_lock(run, store)
        if found is not None and found.holder == lock.holder:
            store.replace(run.lock, _to_json(replace(lock, expires=0.0)), version)
    except (OSError, NightjarError) as error:
        log.warning("%s: the lock could not be released (%s); it expires by itself", run.lock, error)


def this_machine() -> str:
    """Return a name for this machine. Each container has its own name, since it has its own process ids."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {space.readlink()}" if space.is_symlink() else socket.gethostname()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process is of another user
        return True
    return True


def _to_json(lock: Lock) -> bytes:
    return json.dumps(asdict(lock), indent=2, allow_nan=False).encode() + b"\n"
