"""Files at `s3://` and `file://` URIs: steps get their code by it, and leave their logs."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import boto3
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import NightjarError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}  # moto asks for some, and reads none


class StoreError(NightjarError):
    """Something cannot be read or written; the text says what and why."""


class Store:
    """Reads and writes the S3 of one endpoint, and local files."""

    def __init__(self, endpoint_url: str) -> None:
        self._s3: S3Client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=REGION,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def create_bucket(self, name: str) -> None:
        """Creates a bucket.

        Raises:
            StoreError: No bucket can have this name.
        """
        with _named(f"cannot create bucket {name!r}"):
            self._s3.create_bucket(Bucket=name)

    def delete_bucket(self, name: str) -> None:
        """Deletes a bucket with its objects. One that is gone already is fine; one with older versions in it stays."""
        with suppress(ClientError):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=name):
                keys: list[ObjectIdentifierTypeDef] = [{"Key": item["Key"]} for item in page.get("Contents", [])]
                if keys:
                    self._s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
            self._s3.delete_bucket(Bucket=name)

    def fetch(self, uri: str, path: Path) -> None:
        """Copies what is at `uri` to `path`, making its folder.

        Raises:
            StoreError: There is no such file or object.
        """
        with _named(f"cannot read {uri}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if is_s3(uri):
                self._s3.download_file(*_bucket_and_key(uri), str(path))
            else:
                shutil.copyfile(file_path(uri), path)

    def publish(self, path: Path, uri: str) -> None:
        """Copies the file at `path` to `uri`, making its folder.

        Raises:
            StoreError: The folder or the bucket does not take it.
        """
        with _named(f"cannot write {uri}"):
            if is_s3(uri):
                self._s3.upload_file(str(path), *_bucket_and_key(uri))
            else:
                target = file_path(uri)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def is_s3(uri: str) -> bool:
    """Whether `uri` names an object of S3."""
    return uri.partition("://")[0] in S3_SCHEMES


def is_stored(uri: str) -> bool:
    """Whether a `Store` can read `uri`."""
    return is_s3(uri) or uri.startswith("file:")


def file_path(uri: str) -> Path:
    """The path that `Path.as_uri` made `uri` of.

    Raises:
        ValueError: `uri` is no `file://` URI of this machine.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise ValueError(f"{uri}: neither s3:// nor a file:// URI of this machine")
    return Path(url2pathname(parts.path))


def base_name(uri: str) -> str:
    """The last part of the name of what is at `uri`."""
    return uri.rpartition("/")[2] if is_s3(uri) else file_path(uri).name


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, Boto3Error, BotoCoreError, ClientError) as error:
        raise StoreError(f"{what}: {error}") from error


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key
