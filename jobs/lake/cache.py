"""Local copies of files that manifests list, ready to be memory-mapped."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

from jobs.errors import InputError
from jobs.lake.manifest import FileEntry, check_file
from jobs.lake.names import below
from jobs.lake.retry import refuse_full_disk
from jobs.lake.store import COPY_BYTES, open_input
from jobs.lake.uri import is_s3, local_path

MIN_FREE_SHARE = 0.2
"""Share of a YARN data disk that the copies leave free. YARN takes a node out of use when a disk is 90% full."""
_KEPT_SECONDS = 3 * 24 * 3600
_IN_USE_SECONDS = 300.0
"""A file is kept for this many seconds after its last use, since another process may be writing or about to open it."""


def cache_folder() -> Path:
    """Return the folder of this user's copies on this machine. The folder may not exist yet.

    In a YARN container, it is on a data disk of the node (LOCAL_DIRS), which is larger than the disk of /tmp. On this
    disk, YARN has a folder for the user, and inside it one for the application. If the user's folder is writable, the
    copies are there: YARN keeps it after the application ends, so a retry finds them.
    """
    name = f"nightjar-cache-{os.getuid()}"
    for text in filter(None, os.environ.get("LOCAL_DIRS", "").split(",")):
        of_application = Path(text)  # <disk>/usercache/<user>/appcache/<application>
        of_user = of_application.parents[1] if len(of_application.parents) > 1 else of_application
        for folder in (of_user, of_application):
            if folder.is_dir() and os.access(folder, os.W_OK):
                return folder / name
    return Path(tempfile.gettempdir()) / name


def own_cache_folder() -> Path:
    """Return the folder of this user's copies; create it if it is missing. Raise InputError if another user owns it."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user, who could alter the data; delete it, or set TMPDIR")
    return folder


def verified_file(folder_uri: str, entry: FileEntry) -> Path:
    """Return a local file with the content of `entry`, checked by size and hash.

    A file in S3 is copied once to a cache on the local disk, where the copy is named by its hash.

    Raises:
        DamagedError: if the file is missing, or its size or hash differs from the manifest's.
    """
    uri = below(folder_uri, entry.name)
    try:
        if is_s3(uri):
            return _cached_copy(uri, entry)
        return _checked(local_path(uri), uri, entry)
    except FileNotFoundError:
        check_file(uri, entry, None)
        raise


def _checked(path: Path, uri: str, entry: FileEntry) -> Path:
    state = path.stat()
    check_file(uri, entry, state.st_size)  # before the whole file is read
    check_file(uri, entry, state.st_size, _hash_file(path, state.st_size, state.st_mtime_ns))
    return path


def _cached_copy(uri: str, entry: FileEntry) -> Path:
    """Return a local copy of a file in S3. If there is no copy yet, make room and copy the file."""
    folder = own_cache_folder()
    path = local_path(below(folder.as_uri(), entry.sha256))
    with suppress(FileNotFoundError):
        os.utime(path)
        return path
    _make_room(folder, entry.size)
    temporary = folder / f"{entry.sha256}.{uuid.uuid4().hex[:8]}"
    try:
        with open_input(uri) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        return _checked(temporary, uri, entry).replace(path)
    except OSError as error:
        refuse_full_disk(str(folder), error)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(folder: Path, size: int) -> None:
    """Delete copies that were not used for three days. Until `size` bytes fit, delete the least recently used, too.

    Files used in the last five minutes stay, so the room may still be too small. A process that has opened a copy can
    read it after its deletion.
    """
    disk = shutil.disk_usage(folder)
    left_free = disk.total * MIN_FREE_SHARE if "LOCAL_DIRS" in os.environ else 0
    missing = size + left_free - disk.free
    copies = []
    for copy in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may delete it, too
            state = copy.stat()
            if S_ISREG(state.st_mode):
                copies.append((state.st_mtime, state.st_size, copy))
    now = time.time()
    for used_at, num_bytes, copy in sorted(copies):
        if used_at >= now - (_IN_USE_SECONDS if missing > 0 else _KEPT_SECONDS):
            return
        copy.unlink(missing_ok=True)
        missing -= num_bytes


@lru_cache(maxsize=4096)
def _hash_file(path: Path, size: int, modified_ns: int) -> str:
    """Return the sha256 of a file. The result is cached.

    `size` and `modified_ns` are part of the cache key. So the file is hashed again if its size or modification time
    differs.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
