"""Keeps root's processes from writing outside of the temporary folder, and from reading closed files. Linux only.

A command that is given odd places may replace ``/dev/null``. Users without root's rights cannot do such harm.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CAPABILITY_VERSION = 0x20080522
_FLAGS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "relatime": 1 << 21}


def is_harmless() -> bool:
    """Make every disk but the temporary folder read-only for this process; return whether no file can come to harm.

    The mounts of other processes stay as they are.
    """
    if os.getuid() != 0:
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(_CLONE_NEWNS):
        return False
    own = os.path.realpath(tempfile.gettempdir())
    _mount(libc, None, "/", _MS_REC | _MS_PRIVATE)
    _mount(libc, own, own, _MS_BIND)
    for line in reversed(Path("/proc/self/mounts").read_text("utf-8").splitlines()):
        _, quoted, _, options, *_ = line.split()
        target = quoted.encode().decode("unicode_escape")
        if target != own:
            kept = sum(_FLAGS[name] for name in options.split(",") if name in _FLAGS)
            _mount(libc, None, target, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)
    return not os.access("/dev", os.W_OK) and not os.access("/", os.W_OK)


def drop_capabilities() -> None:
    """Give up root's right to read and write files without permission, if this process has it."""
    if os.getuid() == 0:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)())


def _mount(libc: ctypes.CDLL, source: str | None, target: str, flags: int) -> None:
    libc.mount(source and source.encode(), target.encode(), None, ctypes.c_ulong(flags), None)
