"""Local files behind `jobs.lake.store`; a file is complete and on the disk before it gets its name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from jobs.lake.uri import join, local_path

_NO_SYNC = {errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that exists: its URI, size in bytes, and time of the last change in seconds since 1970."""

    uri: str
    size: int
    modified_at: float


@contextmanager
def atomic_temporary_file(path: Path, publish: Callable[[Path, Path], None] = os.replace) -> Iterator[BinaryIO]:
    """Open a new file that gets the name `path` when the block ends; with `os.link`, only if the name is free."""
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


class LocalFiles:
    """The methods of `Store` on local or mounted disks."""

    def read_bytes(self, uri: str) -> bytes:
        return local_path(uri).read_bytes()

    def read_version(self, uri: str) -> tuple[bytes, str]:
        data = self.read_bytes(uri)
        return data, hashlib.sha256(data).hexdigest()

    def write_bytes(self, uri: str, data: bytes) -> None:
        with atomic_temporary_file(local_path(uri)) as file:
            file.write(data)

    def publish(self, uri: str, data: bytes) -> bool:
        try:
            with atomic_temporary_file(local_path(uri), os.link) as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def replace(self, uri: str, data: bytes, version: str) -> bool:
        path = local_path(uri)
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.read_version(uri)[1] != version:
                return False
            self.write_bytes(uri, data)
        return True

    def info(self, uri: str) -> FileInfo | None:
        try:
            state = local_path(uri).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileInfo(uri, state.st_size, state.st_mtime) if S_ISREG(state.st_mode) else None

    def list_files(self, uri: str) -> list[FileInfo]:
        root, uris = local_path(uri), list[str]()
        for path, folders, names in os.walk(root, onerror=_raise_unless_missing, followlinks=True):
            folders[:] = [name for name in folders if not _is_circle(Path(path, name))]
            inner = join(uri, os.path.relpath(path, root)) if path != str(root) else uri
            uris += [join(inner, name) for name in names]
        return [info for info in map(self.info, uris) if info]

    def list_folders(self, uri: str) -> list[str]:
        try:
            return [entry.name for entry in os.scandir(local_path(uri)) if entry.is_dir()]
        except FileNotFoundError:
            return []

    def delete_file(self, uri: str) -> None:
        local_path(uri).unlink(missing_ok=True)

    def delete_folder(self, uri: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(local_path(uri))


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        with suppress(FileExistsError):  # another process was faster
            folder.mkdir()
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, if the file system can and permissions allow."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _is_circle(path: Path) -> bool:
    """Return whether `path` is a link to a folder that it lies in."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
