"""The operations of `jobs.lake.store` on local files.

A file gets its final name only after its whole content is on the disk. So readers never find a partly written file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, BinaryIO

from jobs.lake.files import FileInfo, Reaches
from jobs.lake.layout import MANIFEST
from jobs.lake.uri import join, local_path

_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_NO_SYNC = {errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


@contextmanager
def atomic_temporary_file(path: Path, publish: Callable[[Path, Path], None] = os.replace) -> Iterator[BinaryIO]:
    """Open a temporary file. When the block ends, `publish` gives the file the name `path`.

    By default, an existing file is replaced. If `publish` is `os.link`, FileExistsError is raised instead. If the block
    raises an error, the temporary file is removed.
    """
    made = _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # another process uses the folder
            for folder in made:
                folder.rmdir()
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Hold a lock on a file during the block, so that other programs wait before they replace the file.

    The lock itself is another file in the same folder. It is removed when the block ends.
    """
    name = path.with_name(f".{path.name}.lock")
    while True:
        with name.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(name, lock):
                continue  # the previous program removed this lock file, and another one may exist now
            try:
                yield
            finally:
                name.unlink()
            return


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


class _DoneError(Exception):
    """Raised to leave the block of `LocalFiles.try_writing`, so that the test file is removed."""


class LocalFiles:
    """The methods of `Store` for local or mounted disks."""

    def open_input(self, uri: str, buffer_bytes: int) -> BufferedReader:
        return BufferedReader(FileIO(local_path(uri), "rb", opener=_open_regular), buffer_bytes)

    def read_bytes(self, uri: str) -> bytes:
        with self.open_input(uri, DEFAULT_BUFFER_SIZE) as file:
            return file.read()

    def read_version(self, uri: str) -> tuple[bytes, str]:
        data = self.read_bytes(uri)
        return data, hashlib.sha256(data).hexdigest()

    def try_writing(self, uri: str) -> None:
        """Test whether a file can be written: create the file and the missing folders above it, then remove them."""
        with suppress(_DoneError), atomic_temporary_file(local_path(uri)):
            raise _DoneError

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
        with _turn(local_path(uri)):
            if self.read_version(uri)[1] != version:
                return False
            self.write_bytes(uri, data)
        return True

    def info(self, uri: str) -> FileInfo | None:
        try:
            state = local_path(uri).stat()
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns) if state.st_ino else None
        return FileInfo(uri, state.st_size, state.st_mtime, identity) if S_ISREG(state.st_mode) else None

    def is_folder(self, uri: str) -> bool:
        return local_path(uri).is_dir()

    def list_files(self, uri: str, reaches: Reaches | None = None, others: list[str] | None = None) -> list[FileInfo]:
        root, found, seen = os.fspath(local_path(uri)), list[FileInfo](), set[str]()
        folders, links = [""], list[str]()
        while folders or links:
            links.sort(reverse=True)
            folder, is_link = (folders.pop(), False) if folders else (links.pop(), True)
            path = f"{root}/{folder}" if folder else root
            real = os.path.realpath(path)
            if real in seen or (is_link and _is_circle(Path(path), Path(root))):
                continue  # links are followed last, so that a folder is listed under its own name
            seen.add(real)
            for entry in _entries(path):
                inner = f"{folder}/{entry.name}" if folder else entry.name
                if _is_folder(entry):
                    if reaches is None or reaches(inner):
                        (links if entry.is_symlink() else folders).append(inner)
                elif info := self.info(inner_uri := join(uri, inner)):
                    found.append(info)
                elif others is not None:
                    others.append(inner_uri)
        return found

    def list_folders(self, uri: str) -> list[str]:
        return [entry.name for entry in _entries(os.fspath(local_path(uri))) if entry.is_dir()]

    def delete_file(self, uri: str) -> None:
        local_path(uri).unlink(missing_ok=True)

    def write_folder(self, uri: str, contents: Mapping[str, bytes]) -> None:
        folder = local_path(uri)
        with ExitStack() as stack:  # on exit, renames the files in reverse order: the manifest last
            for name in sorted(contents, key=lambda name: name != MANIFEST):
                file = stack.enter_context(atomic_temporary_file(folder / name))
                file.write(contents[name])
                file.flush()
            (folder / MANIFEST).unlink(missing_ok=True)
        for info in self.list_files(uri):
            if info.uri not in {join(uri, name) for name in contents}:
                self.delete_file(info.uri)

    def delete_folder(self, uri: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(local_path(uri))


def _make_folder(folder: Path) -> list[Path]:
    """Create a folder and the missing folders above it. Return the created folders, the innermost first."""
    if folder.is_dir():
        return []
    made = _make_folder(folder.parent)
    with suppress(FileExistsError):  # another process created it
        folder.mkdir()
        made.insert(0, folder)
    _sync_folder(folder.parent)
    return made


def _sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, if the file system and the permissions allow it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file. Raise OSError for a pipe or a device, without waiting for the writer of a pipe."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(error.errno, error.strerror, path) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    code = errno.EISDIR if S_ISDIR(mode) else errno.ENODEV
    raise OSError(code, os.strerror(code) if S_ISDIR(mode) else "Is a pipe or a device, not a file", str(path))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder. Return [] if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if error.errno in _NO_FILE:
            return []
        raise


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself
        if error.errno in _NO_FILE:
            return False
        raise


def _is_circle(link: Path, root: Path) -> bool:
    """Return whether following a symbolic link would list a folder inside itself.

    That is so if the target of `link` contains the link, or if it is `root`, the listed folder, or above `root`.
    """
    target = link.resolve()
    return link.parent.resolve().is_relative_to(target) or root.resolve().is_relative_to(target)
