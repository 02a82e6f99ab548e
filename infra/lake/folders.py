"""Folders on this machine that root, an ordinary user and the containers may use in turn: the lake, Airflow's home.

A new folder belongs to the owner of the checkout, and the files in a folder belong to the folder's owner. So a process
that runs as root changes the owner of the files that it made. When the containers start, they make their own user the
owner of the lake.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobs.errors import InputError
from jobs.lake.layout import LAKE_FOLDERS

CHECKOUT = Path(__file__).resolve().parents[2]
CORPORA = "corpora"
_FOLDERS = (CORPORA, *LAKE_FOLDERS, *(f"datasets/{kind}" for kind in ("embeddings", "tokens", "windows")))


@contextmanager
def local_lake(lake: Path) -> Iterator[None]:
    """Make the folders of a lake for a `with` block that writes to the lake.

    If this user is root, everything that Nightjar wrote there is given to the lake's owner when the block ends.

    Raises:
        InputError: if this user may not write to the lake.
    """
    make_folders(lake)
    try:
        yield
    except PermissionError as error:
        raise refusal(error, lake) from None
    finally:
        if os.geteuid() == 0:
            owner = lake.stat()
            give(lake, owner.st_uid, owner.st_gid)


@contextmanager
def owned_folder(folder: Path) -> Iterator[None]:
    """Make a folder, such as Airflow's home, for a `with` block that writes to the folder.

    If this user is root, everything in the folder is given to the folder's owner when the block ends.

    Raises:
        InputError: if this user may not write to the folder, or to something in it.
    """
    make_folder(folder)
    if foreign := next(_foreign(folder), None):
        raise InputError(_not_writable(folder, foreign, _owner_of(foreign)))
    try:
        yield
    except PermissionError as error:
        raise refusal(error, folder) from None
    finally:
        give_to_owner(folder, folder)


def make_folders(lake: Path) -> None:
    """Make the missing folders of a lake, owned by the lake's owner. Raise an `InputError` if one is not writable."""
    make_folder(lake)
    for folder in (lake / name for name in _FOLDERS):
        _make(folder, lake, lake)
        if os.geteuid() == 0:
            _change_owner(folder, lake)


def make_folder(folder: Path) -> None:
    """Make a missing folder, owned by the checkout's owner. Raise an `InputError` if the folder is not writable."""
    _make(folder, folder, CHECKOUT)


def give(lake: Path, uid: int, gid: int) -> None:
    """Make a user the owner of the lake's folder and of everything that Nightjar wrote there. Only root can do this."""
    for folder in (lake, lake / CORPORA):
        with suppress(FileNotFoundError):
            os.chown(folder, uid, gid)
    for name in LAKE_FOLDERS:  # texts and other files in the lake keep their owners
        if (lake / name).is_dir():
            take(lake / name, uid, gid)


def give_to_owner(folder: Path, top: Path) -> None:
    """Make the owner of `top` the owner of a folder and everything in it. Do nothing if this user is not root."""
    if os.geteuid() == 0:
        owner = top.stat()
        take(folder, owner.st_uid, owner.st_gid)


def take(folder: Path, uid: int, gid: int) -> None:
    """Make a user the owner of a folder and everything in it. Symbolic links are not followed."""
    # Names are resolved relative to open folders. So a folder that is replaced by a link cannot lead out of `folder`.
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        if _ids(os.fstat(descriptor)) != (uid, gid):
            os.fchown(descriptor, uid, gid)
        for name in (*folders, *files):
            with suppress(FileNotFoundError):  # others may delete files in the meantime
                if _ids(os.stat(name, dir_fd=descriptor, follow_symlinks=False)) != (uid, gid):
                    os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)


def refusal(error: PermissionError, *tops: Path) -> InputError:
    """Return an `InputError` for an error about a file that this user may not access.

    If the file is in one of the folders `tops`, the message has a command that makes this user the owner of that whole
    folder. Else, if the file is in the checkout, the command changes the owner of the file. If the file does not exist,
    the command changes the owner of the nearest parent folder that exists.
    """
    if error.filename is None:
        return InputError(
            f"this user has no permission ({error.strerror}); run the command as the user who ran it before"
        )
    path = Path(os.fsdecode(error.filename)).absolute()
    above = [top for top in tops if path.is_relative_to(top.absolute())]
    if path.is_relative_to(CHECKOUT):
        above += [each for each in (path, *path.parents) if each.is_relative_to(CHECKOUT)]
    if top := next((each for each in above if _exists(each)), None):
        return InputError(_not_writable(top, path, str(error.strerror)))
    return InputError(f"{path}: {error.strerror}; change its permissions, or use another folder")


def _make(folder: Path, top: Path, like: Path) -> None:
    """Make a folder and its missing parents. If this user is root, the new folders get the same owner as `like`.

    Raises:
        InputError: if the folder is not writable. The message has a command that makes this user the owner of `top`.
    """
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing if os.geteuid() == 0 else ():
            _change_owner(each, like)
    except OSError as error:
        raise InputError(_not_writable(top, folder, str(error.strerror))) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(_not_writable(top, folder, _owner_of(folder)))


def _change_owner(folder: Path, like: Path) -> None:
    owner = like.stat()
    if _ids(folder.stat()) != _ids(owner):
        with suppress(PermissionError):  # some file systems do not allow a change of owner
            os.chown(folder, owner.st_uid, owner.st_gid)


def _foreign(folder: Path) -> Iterator[Path]:
    """Yield the files and folders in `folder` that belong to another user and that this user may not write.

    An example is a password file that root created. For root, nothing is yielded.
    """
    for path, folders, files in os.walk(folder) if os.geteuid() else ():
        for each in (Path(path, name) for name in (*folders, *files)):
            with suppress(FileNotFoundError):  # others may delete files in the meantime
                if each.lstat().st_uid != os.geteuid() and not each.is_symlink() and not os.access(each, os.W_OK):
                    yield each


def _exists(folder: Path) -> bool:
    """Return whether a path exists. Return False if this user may not enter the folder that contains the path."""
    try:
        return folder.exists()
    except PermissionError:
        return False


def _ids(found: os.stat_result) -> tuple[int, int]:
    return found.st_uid, found.st_gid


def _owner_of(folder: Path) -> str:
    return f"it belongs to the user with the id {folder.stat().st_uid}"


def _not_writable(top: Path, folder: Path, cause: str) -> str:
    uid, gid, place = os.geteuid(), os.getegid(), f'"{top.absolute()}"'
    command = f"chown -R {uid}:{gid} {place}" if _exists(top) else f"install -d -o {uid} -g {gid} {place}"
    return f"{folder}: you may not write there ({cause}); make it yours: sudo {command}"
