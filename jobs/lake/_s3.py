"""The operations of `jobs.lake.store` on S3 objects. They raise OSError, as the operations on local files do."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ParamValidationError
from botocore.exceptions import ConnectionError as BotoConnectionError

from jobs.lake.files import FileInfo, Reaches
from jobs.lake.layout import MANIFEST
from jobs.lake.retry import TransientError
from jobs.lake.uri import bucket_and_key, join

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ERRNO = {403: errno.EACCES, 404: errno.ENOENT, 412: errno.EEXIST}
_TRANSIENT_CODES = re.compile("Slow ?Down|Throttl|TooManyRequests|RequestTimeout|RequestLimitExceeded", re.IGNORECASE)


@contextmanager
def os_errors(uri: str) -> Iterator[None]:
    """Turn errors of boto3 in the block into OSError, or into TransientError if a retry may help."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ParamValidationError):  # a name that no bucket or key can have
            raise OSError(errno.EINVAL, str(error).splitlines()[-1], uri) from error
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            if status in _ERRNO:
                raise OSError(_ERRNO[status], code, uri) from error  # Python chooses the subclass by the errno
            may_pass = status == 409 or status >= 500 or bool(_TRANSIENT_CODES.search(code))
        else:
            may_pass = isinstance(error, HTTPClientError | BotoConnectionError | IncompleteReadError)
        raise (TransientError if may_pass else OSError)(f"{type(error).__name__}: {error}") from error


class S3Files:
    """The methods of `Store` for S3 objects."""

    def __init__(self, connect: Callable[[], S3Client], part_bytes: int) -> None:
        self._connect = connect
        # Parts are held in memory. More than 4 at a time are not faster on the network of a node.
        self._parts = TransferConfig(multipart_threshold=part_bytes, multipart_chunksize=part_bytes, max_concurrency=4)

    def read_bytes(self, uri: str) -> bytes:
        return self.read_version(uri)[0]

    def read_version(self, uri: str) -> tuple[bytes, str]:
        with self._request(uri) as (client, address):
            found = client.get_object(**address)
            return found["Body"].read(), found["ETag"]

    def read_range(self, uri: str, start: int, size: int) -> bytes:
        with self._request(uri) as (client, address):
            return bytes(client.get_object(**address, Range=f"bytes={start}-{start + size - 1}")["Body"].read())

    def write_bytes(self, uri: str, data: bytes) -> None:
        if len(data) > self._parts.multipart_threshold:
            self._upload(uri, io.BytesIO(data))
        else:
            self._put(uri, data)

    def upload(self, uri: str, path: Path) -> None:
        with path.open("rb") as file:
            self._upload(uri, file)

    def _upload(self, uri: str, file: BinaryIO) -> None:
        with self._request(uri) as (client, address):
            client.upload_fileobj(file, **address, Config=self._parts)

    def publish(self, uri: str, data: bytes) -> bool:
        return self._put(uri, data, IfNoneMatch="*")

    def replace(self, uri: str, data: bytes, version: str) -> bool:
        # If the response to a write is lost, the request is repeated. The second request fails, since the first one has
        # changed the version. So the content is compared.
        return self._put(uri, data, IfMatch=version) or self.read_bytes(uri) == data

    def copy(self, uri: str, target_uri: str) -> None:
        bucket, key = bucket_and_key(uri)
        with self._request(target_uri) as (client, address):
            client.copy({"Bucket": bucket, "Key": key}, **address, Config=self._parts)

    def info(self, uri: str) -> FileInfo | None:
        if not bucket_and_key(uri)[1]:
            return None
        try:
            with self._request(uri) as (client, address):
                found = client.head_object(**address)
        except FileNotFoundError:
            return None
        return FileInfo(uri, found["ContentLength"], found["LastModified"].timestamp())

    def is_folder(self, uri: str) -> bool:
        return any("Contents" in page for page in self._list(uri, MaxKeys=1, PaginationConfig={"MaxItems": 1}))

    def list_files(self, uri: str, reaches: Reaches | None = None, others: list[str] | None = None) -> list[FileInfo]:
        """List the files below a prefix. With `reaches`, skip the subfolders for which this function returns False."""
        bucket, prefix = bucket_and_key(uri)
        prefix, found = f"{prefix}/" if prefix else "", list[FileInfo]()
        folders, options = [prefix], {} if reaches is None else {"Delimiter": "/"}
        while folders:
            for page in self._pages(uri, folders.pop(), **options):
                found += [
                    FileInfo(f"s3://{bucket}/{item['Key']}", item["Size"], item["LastModified"].timestamp())
                    for item in page.get("Contents", [])
                    if not item["Key"].endswith("/")  # consoles write an empty object for a folder
                ]
                below = [item["Prefix"] for item in page.get("CommonPrefixes", [])]
                folders += [key for key in below if reaches and reaches(key[len(prefix) :].removesuffix("/"))]
        return found

    def list_folders(self, uri: str) -> list[str]:
        found = [item["Prefix"] for page in self._list(uri, Delimiter="/") for item in page.get("CommonPrefixes", [])]
        return [prefix.removesuffix("/").rpartition("/")[2] for prefix in found]

    def delete_file(self, uri: str) -> None:
        with self._request(uri) as (client, address):
            client.delete_object(**address)

    def delete_folder(self, uri: str) -> None:
        for page in self._list(uri):
            if keys := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
                with self._request(uri) as (client, address):
                    done = client.delete_objects(Bucket=address["Bucket"], Delete={"Objects": keys, "Quiet": True})
                for error in done.get("Errors", []):
                    raise TransientError(f"{error['Code']}: {error['Key']} was not deleted")

    def write_folder(self, uri: str, contents: Mapping[str, bytes]) -> None:
        self.delete_folder(uri)
        try:
            for name in sorted(contents, key=lambda name: name == MANIFEST):
                self.write_bytes(join(uri, name), contents[name])
        except OSError:
            self.delete_folder(uri)
            raise

    def _list(self, uri: str, **options: Any) -> Iterator[Any]:
        key = bucket_and_key(uri)[1]
        return self._pages(uri, f"{key}/" if key else "", **options)

    def _pages(self, uri: str, prefix: str, **options: Any) -> Iterator[Any]:
        with self._request(uri) as (client, address):
            pages = client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=address["Bucket"], Prefix=prefix, **options)

    def _put(self, uri: str, data: bytes, **condition: str) -> bool:
        """Write an object and return True. Return False if `condition`, such as ``IfMatch=<version>``, is not met."""
        try:
            with self._request(uri) as (client, address):
                client.put_object(**address, Body=data, **condition)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def _request(self, uri: str) -> Iterator[tuple[Any, dict[str, str]]]:
        """Yield the client, and the arguments ``Bucket`` and ``Key`` for `uri`. Turn boto3's errors into OSError."""
        bucket, key = bucket_and_key(uri)
        with os_errors(uri):
            yield self._connect(), {"Bucket": bucket, "Key": key}
