"""Reads and writes files of the lake, with the same functions for local disks (``file://``) and S3 (``s3://``).

The functions of this module are the methods of the store `ENVIRONMENT`, which has the credentials of this process. The
job uses them. Airflow and the embedded EMR create a `Store` with their own S3 client.

A dataset exists when its manifest does. The manifest is published last, and only if there is none yet. Readers read
only the files that the manifest lists.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from jobs.errors import DamagedError, InputError
from jobs.lake._local import LocalFiles, atomic_temporary_file
from jobs.lake.files import FileInfo, Reaches
from jobs.lake.layout import MANIFEST
from jobs.lake.manifest import FileEntry, Manifest, check_content, check_file, parse_manifest
from jobs.lake.names import below
from jobs.lake.region import find_region
from jobs.lake.retry import LIMIT_SECONDS, Result, one_line, retry_transient
from jobs.lake.strict_json import finite, not_finite, to_json
from jobs.lake.uri import is_s3, join, local_path

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from jobs.lake._s3 import S3Files

BUFFER_BYTES = 1 << 16
COPY_BYTES = 1 << 23
_MOST_NAMED = 5

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def environment_client() -> S3Client:
    """Return an S3 client for the region of this process, with the endpoint and the credentials that boto3 finds."""
    import boto3  # noqa: PLC0415 - takes long to import, and Airflow parses DAGs often
    from botocore.config import Config  # noqa: PLC0415

    retries = Config(retries={"mode": "standard", "max_attempts": 3})
    return boto3.client("s3", region_name=find_region(), config=retries)


class Store:
    """The operations on files of a lake. Each operation is retried after transient errors.

    An operation raises LakeError if the lake fails for longer than the limit, or if a disk is full. If a retry cannot
    help, it raises an OSError, such as FileNotFoundError.

    Args:
        connect: Function that returns a boto3 client for S3.
        retry_seconds: Time limit of an operation with all of its retries. With 0, an operation is tried once.
        part_bytes: S3 objects larger than this are written and copied in parts. A request takes at most 5 GiB.
    """

    def __init__(
        self,
        connect: Callable[[], S3Client] = environment_client,
        retry_seconds: float = LIMIT_SECONDS,
        part_bytes: int = 1 << 24,
    ) -> None:
        self._connect = connect
        self._retry_seconds = retry_seconds
        self._part_bytes = part_bytes
        self._local = LocalFiles()

    @cached_property
    def _s3(self) -> S3Files:
        from jobs.lake._s3 import S3Files  # noqa: PLC0415 - imports boto3

        return S3Files(self._connect, self._part_bytes)

    def _files(self, uri: str) -> LocalFiles | S3Files:
        return self._s3 if is_s3(uri) else self._local

    def _retry(self, uri: str, operation: Callable[[], Result]) -> Result:
        return retry_transient(uri, operation, self._retry_seconds)

    def open_input(self, uri: str, buffer_bytes: int = BUFFER_BYTES) -> io.BufferedReader:
        """Open a file for reading at any position. A read fetches at least `buffer_bytes` bytes."""
        if not is_s3(uri):
            return self._retry(uri, lambda: self._local.open_input(uri, buffer_bytes))
        info = self.info(uri)
        if info is None:
            raise FileNotFoundError(uri)
        return io.BufferedReader(_RangeReader(self, uri, info.size), buffer_bytes)

    def read_bytes(self, uri: str) -> bytes:
        """Return the content of a file."""
        return self._retry(uri, lambda: self._files(uri).read_bytes(uri))

    def read_range(self, uri: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an S3 object from the byte offset `start` on."""
        return self._retry(uri, lambda: self._s3.read_range(uri, start, size))

    def read_version(self, uri: str) -> tuple[bytes, str]:
        """Return the content of a file, and its version for `replace`."""
        return self._retry(uri, lambda: self._files(uri).read_version(uri))

    def read_json(self, uri: str) -> Any:
        """Return the value in a JSON file; raise DamagedError if the file is not JSON.

        Earlier versions of Nightjar wrote NaN and Infinity, which are not JSON. They are read as None.
        """
        data = self.read_bytes(uri)
        try:
            return json.loads(data, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{uri}: not valid JSON ({error}); delete it and run the step again") from None

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Write a file, and replace an existing one. A reader gets either the old content or the new."""
        self._retry(uri, lambda: self._files(uri).write_bytes(uri, data))

    def write_json(self, uri: str, value: Any) -> None:
        """Write a JSON file, and replace an existing one. Log numbers that are not finite, and write null for them."""
        if found := list(not_finite(value)):
            more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
            log.warning("%s: %s%s; written as null", uri, ", ".join(found[:_MOST_NAMED]), more)
        self.write_bytes(uri, to_json(finite(value), uri))

    def publish(self, uri: str, data: bytes) -> bool:
        """Write a file unless there is one; return whether it was written."""
        return self._retry(uri, lambda: self._files(uri).publish(uri, data))

    def replace(self, uri: str, data: bytes, version: str) -> bool:
        """Replace a file if its version (see `read_version`) is still `version`. Return whether it was replaced."""
        return self._retry(uri, lambda: self._files(uri).replace(uri, data, version))

    def copy(self, uri: str, target_uri: str) -> None:
        """Copy a file within or between local disks and S3, and replace an existing target."""
        if is_s3(uri) and is_s3(target_uri):
            self._retry(target_uri, lambda: self._s3.copy(uri, target_uri))
        elif is_s3(target_uri):
            self._retry(target_uri, lambda: self._s3.upload(target_uri, local_path(uri)))
        else:
            self._retry(target_uri, lambda: self._download(uri, target_uri))

    def _download(self, uri: str, target_uri: str) -> None:
        with self.open_input(uri) as source, atomic_temporary_file(local_path(target_uri)) as target:
            shutil.copyfileobj(source, target, COPY_BYTES)

    def info(self, uri: str) -> FileInfo | None:
        """Return the size and the time of the last change of a file, or None if there is no file."""
        return self._retry(uri, lambda: self._files(uri).info(uri))

    def exists(self, uri: str) -> bool:
        """Return whether there is a file at `uri`."""
        return self.info(uri) is not None

    def is_folder(self, uri: str) -> bool:
        """Return whether there is a folder at `uri`; in S3, whether there are files below it."""
        return self._retry(uri, lambda: self._files(uri).is_folder(uri))

    def list_files(self, uri: str, reaches: Reaches | None = None, others: list[str] | None = None) -> list[FileInfo]:
        """Return all files below a folder, sorted by URI; none if there is no such folder.

        Symbolic links are followed, except to folders above the link. Each folder is listed once.

        Args:
            uri: The folder.
            reaches: Function that takes the relative name of a subfolder, and returns whether to list the files in it.
                By default, all subfolders are listed.
            others: List to which the URIs of local entries that are neither files nor folders are added: pipes,
                devices and broken links.
        """

        def operation() -> list[FileInfo]:
            return self._files(uri).list_files(uri, reaches, others)

        return sorted(self._retry(uri, operation), key=lambda info: info.uri)

    def list_folders(self, uri: str) -> list[str]:
        """Return the names of the folders in a folder, sorted; none if there is no such folder."""
        return sorted(self._retry(uri, lambda: self._files(uri).list_folders(uri)))

    def delete_file(self, uri: str) -> None:
        """Delete a file if there is one."""
        self._retry(uri, lambda: self._files(uri).delete_file(uri))

    def delete_folder(self, uri: str) -> None:
        """Delete a folder, if there is one, and everything below it."""
        self._retry(uri, lambda: self._files(uri).delete_folder(uri))

    def check_writable(self, uri: str, what: str = "the lake", options: str = "--lake, NIGHTJAR_LAKE") -> None:
        """Check that a small file can be written and deleted below `uri`. If not, raise InputError without retries.

        `what` names the folder in the error's message. `options` lists the ways to choose another folder.
        """
        probe, once = join(uri, f".write-test-{uuid.uuid4().hex[:8]}"), Store(self._connect, retry_seconds=0)
        try:
            if is_s3(uri):
                once.write_bytes(probe, b"")
                once.delete_file(probe)
            else:
                self._local.try_writing(probe)
        except OSError as error:
            raise InputError(
                f"{uri}: {what} cannot be written to ({one_line(error)}); choose another folder ({options})"
            ) from None

    def write_folder(self, folder_uri: str, contents: Mapping[str, bytes]) -> None:
        """Write the files of a dataset, the manifest last, and replace an existing dataset in the folder.

        On a disk, the earlier files stay until the new ones are written. In S3, which cannot rename objects, the
        earlier files are deleted first. If a file cannot be written, the new files are removed.
        """
        for name in contents:
            below(folder_uri, name)
        self._retry(folder_uri, lambda: self._files(folder_uri).write_folder(folder_uri, contents))

    def write_shard(self, folder_uri: str, name: str, data: bytes, **counts: int) -> FileEntry:
        """Write a file of a dataset as `write_file` does. Add random digits to the name, before the suffix."""
        stem, _, suffix = name.rpartition(".")
        return self.write_file(folder_uri, f"{stem}-{uuid.uuid4().hex[:12]}.{suffix}", data, **counts)

    def write_file(self, folder_uri: str, name: str, data: bytes, **counts: int) -> FileEntry:
        """Write a file of a dataset, and return its entry for the manifest, with `counts` in it."""
        self.write_bytes(join(folder_uri, name), data)
        return FileEntry.of(name, data, **counts)

    def read_file(self, folder_uri: str, entry: FileEntry) -> bytes:
        """Return the content of a file of a dataset, checked by size and hash. The content must fit in memory."""
        uri = below(folder_uri, entry.name)
        try:
            data = self.read_bytes(uri)
        except FileNotFoundError:
            check_file(uri, entry, None)
            raise
        check_content(uri, entry, data)
        return data

    def publish_manifest(self, folder_uri: str, manifest: Manifest) -> bool:
        """Write the manifest of a dataset unless there is one; return whether it was written."""
        return self.publish(join(folder_uri, MANIFEST), manifest.to_json())

    def read_manifest(self, folder_uri: str) -> Manifest | None:
        """Return the manifest of the dataset at `folder_uri`, or None if there is no dataset."""
        uri = join(folder_uri, MANIFEST)
        try:
            return parse_manifest(self.read_bytes(uri), uri)
        except FileNotFoundError:
            return None

    def verify_sizes(self, folder_uri: str, manifest: Manifest) -> None:
        """Raise DamagedError if a file of a dataset is missing or has the wrong size. Files are listed, not read."""
        sizes = {info.uri: info.size for info in self.list_files(folder_uri)}
        for entry in manifest.files:
            uri = below(folder_uri, entry.name)
            check_file(uri, entry, sizes.get(uri))


class _RangeReader(io.RawIOBase):
    """A file object for an S3 object. Each read is one request for a range of bytes."""

    def __init__(self, store: Store, uri: str, size: int) -> None:
        super().__init__()
        self._store, self._uri, self._size = store, uri, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self._uri)
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._position))
        if size:
            buffer[:size] = self._store.read_range(self._uri, self._position, size)
            self._position += size
        return size


ENVIRONMENT = Store()
"""The store with the credentials of this process. Its methods are the functions of this module."""

open_input, copy = ENVIRONMENT.open_input, ENVIRONMENT.copy
read_bytes, read_version, read_json = ENVIRONMENT.read_bytes, ENVIRONMENT.read_version, ENVIRONMENT.read_json
write_bytes, write_json = ENVIRONMENT.write_bytes, ENVIRONMENT.write_json
publish, replace, check_writable = ENVIRONMENT.publish, ENVIRONMENT.replace, ENVIRONMENT.check_writable
info, exists = ENVIRONMENT.info, ENVIRONMENT.exists
list_files, list_folders = ENVIRONMENT.list_files, ENVIRONMENT.list_folders
delete_file, delete_folder = ENVIRONMENT.delete_file, ENVIRONMENT.delete_folder
write_shard, write_file, read_file = ENVIRONMENT.write_shard, ENVIRONMENT.write_file, ENVIRONMENT.read_file
write_folder = ENVIRONMENT.write_folder
publish_manifest, read_manifest = ENVIRONMENT.publish_manifest, ENVIRONMENT.read_manifest
verify_sizes = ENVIRONMENT.verify_sizes
