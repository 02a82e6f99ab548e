"""The folders of a lake on this machine. Root, an ordinary user and the containers may use the same lake in turn.

Whoever owns the lake's folder owns what is in it. So root gives the files that it made to the owner, and the containers
take the lake over when they start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobs.errors import InputError
from jobs.lake.layout import LAKE_FOLDERS

CORPORA = "corpora"
_FOLDERS = (CORPORA, *LAKE_FOLDERS, *(f"datasets/{kind}" for kind in ("embeddings", "tokens", "windows")))


@contextmanager
def local_lake(lake: Path) -> Iterator[None]:
    """Make the folders of a lake. At the end of the block, give new files of root to the lake's owner.

    Raises:
        InputError: if this user may not write to the lake.
    """
    make_folders(lake)
    try:
        yield
    finally:
        owner = lake.stat()
        if os.geteuid() == 0 != owner.st_uid:
            give(lake, owner.st_uid, owner.st_gid)


def make_folders(lake: Path) -> None:
    """Make the folders of a lake that are missing, for its owner. A folder that is not writable is an `InputError`."""
    for folder in (lake, *(lake / name for name in _FOLDERS)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                os.chown(folder, lake.stat().st_uid, lake.stat().st_gid)
        except OSError as error:
            raise InputError(_not_writable(lake, folder, str(error.strerror))) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(_not_writable(lake, folder, f"it belongs to the user with the id {folder.stat().st_uid}"))


def give(lake: Path, uid: int, gid: int) -> None:
    """Make a user the owner of the lake's folder and of everything that runs wrote. Needs the rights of root."""
    for folder in (lake, lake / CORPORA):
        with suppress(FileNotFoundError):
            os.chown(folder, uid, gid)
    for name in LAKE_FOLDERS:  # texts, and others in the lake, keep their owners
        if (lake / name).is_dir():
            take(lake / name, uid, gid)


def take(folder: Path, uid: int, gid: int) -> None:
    """Make a user the owner of a folder and everything in it. Links are not followed."""
    # By descriptors of folders: a name that becomes a link meanwhile leads nowhere else.
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        os.fchown(descriptor, uid, gid)
        for name in (*folders, *files):
            with suppress(FileNotFoundError):  # others may use the lake meanwhile
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if (found.st_uid, found.st_gid) != (uid, gid):
                    os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)


def _not_writable(lake: Path, folder: Path, cause: str) -> str:
    ids = f"{os.geteuid()}:{os.getegid()}"
    return f'{folder}: you may not write to the lake ({cause}); make it yours: sudo chown -R {ids} "{lake.absolute()}"'
