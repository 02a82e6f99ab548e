"""Files of the lake from Airflow's side: ``file://`` and ``s3://`` with the same few methods.

Airflow's environment has no pyarrow, so this is not `jobs.lake`: it moves small files, copies large ones and swaps
pointers. A local write is a rename, so a reader sees the old file or the new one; a conditional write is S3's own
(``If-None-Match``, ``If-Match``), locally a hard link or a rename under a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError

from jobs.lake.atomic import temporary_beside
from jobs.lake.uri import bucket_and_key, is_s3, join, local_path
from nightjar import aws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NOT_FOUND = frozenset({"NoSuchKey", "NotFound", "404"})
_CONDITION_FAILED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


@dataclass(frozen=True)
class StoredFile:
    """A file that was found: its name below the folder that was listed, where it is, and its bytes."""

    name: str
    uri: str
    size: int


class Storage(Protocol):
    """What both kinds of storage can do. Reading what is not there raises FileNotFoundError."""

    def open(self, uri: str) -> IO[bytes]:
        """Open a file for reading from its start."""

    def read(self, uri: str) -> bytes:
        """The content of a file."""

    def read_version(self, uri: str) -> tuple[bytes, str]:
        """The content of a file, and a word for this version of it that `swap` understands."""

    def write(self, uri: str, data: bytes) -> None:
        """Write a whole file, over an earlier one."""

    def publish(self, uri: str, data: bytes) -> bool:
        """Write a whole file unless there is one: then return False."""

    def swap(self, uri: str, data: bytes, version: str) -> bool:
        """Write over a file that is still at `version`; if it is not, return False."""

    def copy(self, source_uri: str, target_uri: str) -> None:
        """Copy a file within this storage."""

    def delete(self, uri: str) -> None:
        """Delete a file."""

    def list_files(self, uri: str) -> list[StoredFile]:
        """All files below a folder, by name; none if there is no such folder. A file is its own only content."""


def open_storage(uri: str) -> Storage:
    """The storage that `uri` lies in."""
    return S3Storage() if is_s3(uri) else LocalStorage()


class LocalStorage:
    """Files on a local or mounted disk."""

    def open(self, uri: str) -> IO[bytes]:
        """Open a file for reading from its start."""
        return local_path(uri).open("rb")

    def read(self, uri: str) -> bytes:
        """The content of a file."""
        return local_path(uri).read_bytes()

    def read_version(self, uri: str) -> tuple[bytes, str]:
        """The content of a file, and its hash."""
        data = self.read(uri)
        return data, hashlib.sha256(data).hexdigest()

    def write(self, uri: str, data: bytes) -> None:
        """Write a whole file, over an earlier one."""
        with temporary_beside(local_path(uri), data) as temporary:
            temporary.replace(local_path(uri))

    def publish(self, uri: str, data: bytes) -> bool:
        """Write a whole file unless there is one: then return False."""
        with temporary_beside(local_path(uri), data) as temporary:
            try:
                os.link(temporary, local_path(uri))
            except FileExistsError:
                return False
        return True

    def swap(self, uri: str, data: bytes, version: str) -> bool:
        """Write over a file that is still at `version`; if it is not, return False."""
        path = local_path(uri)
        with _locked(path.with_name(f".{path.name}.lock")):
            if self.read_version(uri)[1] != version:
                return False
            self.write(uri, data)
        return True

    def copy(self, source_uri: str, target_uri: str) -> None:
        """Copy a file, whole or not at all."""
        target = local_path(target_uri)
        with temporary_beside(target, b"") as temporary:
            shutil.copyfile(local_path(source_uri), temporary)
            temporary.replace(target)

    def delete(self, uri: str) -> None:
        """Delete a file."""
        local_path(uri).unlink(missing_ok=True)

    def list_files(self, uri: str) -> list[StoredFile]:
        """All files below a folder, by name; none if there is no such folder."""
        root = local_path(uri)
        if root.is_file():
            return [StoredFile(root.name, uri, root.stat().st_size)]
        files = sorted(path for path in root.rglob("*") if path.is_file())
        names = [(path.relative_to(root).as_posix(), path) for path in files]
        return [StoredFile(name, join(uri, name), path.stat().st_size) for name, path in names]


class S3Storage:
    """Objects of S3, with the connection's endpoint and credentials."""

    @cached_property
    def client(self) -> S3Client:
        """A boto3 client of the connection."""
        return aws.s3_client()

    def open(self, uri: str) -> IO[bytes]:
        """Open an object for reading from its start."""
        body: Any = self._get(uri)["Body"]
        stream: IO[bytes] = body
        return stream

    def read(self, uri: str) -> bytes:
        """The content of an object."""
        return self.open(uri).read()

    def read_version(self, uri: str) -> tuple[bytes, str]:
        """The content of an object, and its ETag."""
        found = self._get(uri)
        return found["Body"].read(), found["ETag"]

    def write(self, uri: str, data: bytes) -> None:
        """Write a whole object, over an earlier one."""
        bucket, key = bucket_and_key(uri)
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def publish(self, uri: str, data: bytes) -> bool:
        """Write a whole object unless there is one: then return False."""
        return self._put_if(uri, data, IfNoneMatch="*")

    def swap(self, uri: str, data: bytes, version: str) -> bool:
        """Write over an object that is still at `version`; if it is not, return False."""
        return self._put_if(uri, data, IfMatch=version)

    def copy(self, source_uri: str, target_uri: str) -> None:
        """Copy an object inside S3, in parts where it is large."""
        bucket, key = bucket_and_key(source_uri)
        self.client.copy({"Bucket": bucket, "Key": key}, *bucket_and_key(target_uri))

    def delete(self, uri: str) -> None:
        """Delete an object."""
        bucket, key = bucket_and_key(uri)
        self.client.delete_object(Bucket=bucket, Key=key)

    def list_files(self, uri: str) -> list[StoredFile]:
        """All objects below a prefix, by name, without the placeholders that consoles make of folders."""
        bucket, key = bucket_and_key(uri.rstrip("/"))
        prefix = f"{key}/" if key else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}
        if found or not key:
            names = sorted(name for name in found if not name.endswith("/"))
            return [StoredFile(name[len(prefix) :], f"s3://{bucket}/{name}", found[name]) for name in names]
        first = self.client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        return [StoredFile(key.rpartition("/")[2], uri, item["Size"]) for item in first if item["Key"] == key]

    def _get(self, uri: str) -> Any:
        bucket, key = bucket_and_key(uri)
        try:
            return self.client.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _NOT_FOUND:
                raise FileNotFoundError(uri) from None
            raise

    def _put_if(self, uri: str, data: bytes, **condition: str) -> bool:
        bucket, key = bucket_and_key(uri)
        put: Any = self.client.put_object  # its stubs know no condition that is chosen at run time
        try:
            put(Bucket=bucket, Key=key, Body=data, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in _CONDITION_FAILED:
                return False
            raise
        return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` among the processes of this machine."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
