"""Files of the lake, on local disks (``file://``) and in S3 (``s3://``), with the same functions for both.

The functions of this module are the methods of a `Store` that takes endpoint, credentials and region from the
environment of the process, as the job does. Airflow and the embedded EMR make a `Store` with a client of their own.

A dataset exists when its manifest does. Shards are written under names that no other attempt uses, and the manifest
that lists them is published last, only if there is none. Readers read only what a manifest lists, so nothing that a
crash leaves behind is taken for data.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from jobs.errors import DamagedError, InputError
from jobs.lake._local import FileInfo, LocalFiles, atomic_temporary_file
from jobs.lake._streams import RangeReader, ShardWriter
from jobs.lake.layout import MANIFEST
from jobs.lake.manifest import FileEntry, Manifest, check_content, check_file, parse_manifest
from jobs.lake.retry import LIMIT_SECONDS, Result, one_line, refuse_full_disk, retry_transient
from jobs.lake.uri import is_s3, join, local_path

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from jobs.lake._s3 import S3Files

PART_BYTES = 1 << 24
BUFFER_BYTES = 1 << 16
_COPY_BYTES = 1 << 23


@lru_cache(maxsize=1)
def environment_client() -> S3Client:
    """Return the client of S3 whose endpoint, credentials and region boto3 finds in the process's environment."""
    import boto3  # noqa: PLC0415 - takes long to import, and Airflow parses DAGs often
    from botocore.config import Config  # noqa: PLC0415

    return boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 3}))


class Store:
    """The operations on files of a lake, each of which is retried while the lake fails.

    Reading a file that does not exist raises FileNotFoundError. Any operation raises LakeError if the lake fails for
    longer than the limit or a disk is full, and another OSError for what cannot pass, such as a lack of permissions.

    Args:
        connect: Returns a boto3 client of S3, the same at each call.
        retry_seconds: Time limit of an operation with all of its retries. 0 means that it is tried once.
        part_bytes: Larger objects of S3 are written and copied in parts of this size; one request takes at most 5 GiB.
    """

    def __init__(
        self,
        connect: Callable[[], S3Client] = environment_client,
        retry_seconds: float = LIMIT_SECONDS,
        part_bytes: int = PART_BYTES,
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

    def open_input(self, uri: str, buffer_bytes: int = BUFFER_BYTES) -> BufferedReader:
        """Open a file for reading at any position. A read of fewer bytes than `buffer_bytes` fetches that many."""
        if not is_s3(uri):
            return cast("BufferedReader", self._retry(uri, lambda: local_path(uri).open("rb", buffer_bytes)))
        info = self.info(uri)
        if info is None:
            raise FileNotFoundError(uri)

        def read_range(start: int, size: int) -> bytes:
            return self._retry(uri, lambda: self._s3.read_range(uri, start, size))

        return BufferedReader(RangeReader(read_range, info.size), buffer_bytes)

    def read_bytes(self, uri: str) -> bytes:
        """Return the content of a file."""
        return self._retry(uri, lambda: self._files(uri).read_bytes(uri))

    def read_version(self, uri: str) -> tuple[bytes, str]:
        """Return the content of a file, and its version, which `replace` takes."""
        return self._retry(uri, lambda: self._files(uri).read_version(uri))

    def read_json(self, uri: str) -> Any:
        """Return the content of a JSON file.

        Raises:
            DamagedError: if it is not JSON.
        """
        data = self.read_bytes(uri)
        try:
            return json.loads(data)
        except ValueError as error:
            raise DamagedError(f"{uri}: not valid JSON ({error}); delete it and run the step again") from None

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Write a file in place of an earlier one. A reader sees the old content or the new."""
        self._retry(uri, lambda: self._files(uri).write_bytes(uri, data))

    def write_json(self, uri: str, value: Any) -> None:
        """Write a JSON file in place of an earlier one."""
        self.write_bytes(uri, json.dumps(value, indent=2).encode() + b"\n")

    def publish(self, uri: str, data: bytes) -> bool:
        """Write a file unless there is one; return whether it was written."""
        return self._retry(uri, lambda: self._files(uri).publish(uri, data))

    def replace(self, uri: str, data: bytes, version: str) -> bool:
        """Write a file in place of one that is still at `version`; return whether it was written."""
        return self._retry(uri, lambda: self._files(uri).replace(uri, data, version))

    @contextmanager
    def create(self, uri: str) -> Iterator[BinaryIO]:
        """Open a file for writing, which is in the lake when the block has ended, in place of an earlier one."""
        try:
            if not is_s3(uri):
                with atomic_temporary_file(local_path(uri)) as file:
                    yield file
            else:  # an upload that fails can be repeated, since the content is on the local disk
                with tempfile.NamedTemporaryFile() as copy:
                    yield cast("BinaryIO", copy)
                    copy.flush()
                    self._retry(uri, lambda: self._s3.upload(uri, Path(copy.name)))
        except OSError as error:
            refuse_full_disk(tempfile.gettempdir() if is_s3(uri) else uri, error)
            raise

    def copy(self, uri: str, target_uri: str) -> None:
        """Copy a file in place of an earlier one, within a storage or from one to another."""
        if is_s3(uri) and is_s3(target_uri):
            self._retry(target_uri, lambda: self._s3.copy(uri, target_uri))
        elif is_s3(target_uri):
            self._retry(target_uri, lambda: self._s3.upload(target_uri, local_path(uri)))
        else:
            with self.open_input(uri) as source, self.create(target_uri) as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)

    def info(self, uri: str) -> FileInfo | None:
        """Return the size and the time of the last change of a file, or None if there is no file."""
        return self._retry(uri, lambda: self._files(uri).info(uri))

    def exists(self, uri: str) -> bool:
        """Return whether there is a file at `uri`."""
        return self.info(uri) is not None

    def list_files(self, uri: str) -> list[FileInfo]:
        """Return all files below a folder, sorted by URI; none if there is no such folder.

        Symbolic links are followed, except for those that lead back to a folder that they lie in.
        """
        return sorted(self._retry(uri, lambda: self._files(uri).list_files(uri)), key=lambda info: info.uri)

    def list_folders(self, uri: str) -> list[str]:
        """Return the names of the folders in a folder, sorted; none if there is no such folder."""
        return sorted(self._retry(uri, lambda: self._files(uri).list_folders(uri)))

    def delete_file(self, uri: str) -> None:
        """Delete a file if there is one."""
        self._retry(uri, lambda: self._files(uri).delete_file(uri))

    def delete_folder(self, uri: str) -> None:
        """Delete a folder, if there is one, and everything below it."""
        self._retry(uri, lambda: self._files(uri).delete_folder(uri))

    def check_writable(self, uri: str) -> None:
        """Write and delete a small file below `uri`, without retries: a wrong place should be reported at once.

        Raises:
            InputError: if that fails.
        """
        probe, once = join(uri, f".write-test-{uuid.uuid4().hex[:8]}"), Store(self._connect, retry_seconds=0)
        try:
            once.write_bytes(probe, b"")
            once.delete_file(probe)
        except OSError as error:
            raise InputError(
                f"{uri}: the lake cannot be written to ({one_line(error)}); choose another (--lake, NIGHTJAR_LAKE)"
            ) from None

    @contextmanager
    def create_shard(self, folder_uri: str, stem: str, suffix: str) -> Iterator[ShardWriter]:
        """Write a file below `folder_uri` under a name that no other attempt uses (``<stem>-<random><suffix>``).

        `stem` may contain folders (``train/00000``). The file counts once a manifest lists its `ShardWriter.entry`.
        """
        name = f"{stem}-{uuid.uuid4().hex[:12]}{suffix}"
        with self.create(join(folder_uri, name)) as file:
            yield ShardWriter(file, name)

    def write_file(self, folder_uri: str, name: str, data: bytes, **counts: int) -> FileEntry:
        """Write a file of a dataset under its own name, and return the manifest's entry for it."""
        self.write_bytes(join(folder_uri, name), data)
        return FileEntry.of(name, data, **counts)

    def read_file(self, folder_uri: str, entry: FileEntry) -> bytes:
        """Return the content of a file of a dataset, which must fit in memory.

        Raises:
            DamagedError: if the file is missing, or its size or hash differs from the manifest's.
        """
        uri = join(folder_uri, entry.name)
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
        """Return the manifest of the dataset at `folder_uri`, or None if there is no dataset.

        Raises:
            DamagedError: if there is a manifest that cannot be read.
        """
        uri = join(folder_uri, MANIFEST)
        try:
            return parse_manifest(self.read_bytes(uri), uri)
        except FileNotFoundError:
            return None

    def verify_sizes(self, folder_uri: str, manifest: Manifest) -> None:
        """Check that every file of a dataset exists and has its size: one listing, and no file is read.

        Raises:
            DamagedError: if a file is missing or has another size; the message names the first one.
        """
        sizes = {info.uri: info.size for info in self.list_files(folder_uri)}
        for entry in manifest.files:
            uri = join(folder_uri, entry.name)
            check_file(uri, entry, sizes.get(uri))


ENVIRONMENT = Store()
"""The store of this process's environment, whose methods are the functions of this module."""

open_input, create, copy = ENVIRONMENT.open_input, ENVIRONMENT.create, ENVIRONMENT.copy
read_bytes, read_version, read_json = ENVIRONMENT.read_bytes, ENVIRONMENT.read_version, ENVIRONMENT.read_json
write_bytes, write_json = ENVIRONMENT.write_bytes, ENVIRONMENT.write_json
publish, replace, check_writable = ENVIRONMENT.publish, ENVIRONMENT.replace, ENVIRONMENT.check_writable
info, exists = ENVIRONMENT.info, ENVIRONMENT.exists
list_files, list_folders = ENVIRONMENT.list_files, ENVIRONMENT.list_folders
delete_file, delete_folder = ENVIRONMENT.delete_file, ENVIRONMENT.delete_folder
create_shard, write_file, read_file = ENVIRONMENT.create_shard, ENVIRONMENT.write_file, ENVIRONMENT.read_file
publish_manifest, read_manifest = ENVIRONMENT.publish_manifest, ENVIRONMENT.read_manifest
verify_sizes = ENVIRONMENT.verify_sizes
