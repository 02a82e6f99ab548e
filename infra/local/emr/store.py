"""Files at `s3://` and `file://` URIs: steps get their code by it, and leave their logs."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import boto3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}  # moto asks for some, and reads none


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
            botocore.exceptions.ClientError: S3 does not accept the name.
            botocore.exceptions.ParamValidationError: No bucket can have this name.
        """
        self._s3.create_bucket(Bucket=name)

    def fetch(self, uri: str, path: Path) -> None:
        """Copies what is at `uri` to `path`, making its folder.

        Raises:
            OSError: There is no such file.
            botocore.exceptions.ClientError: There is no such object.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_s3(uri):
            self._s3.download_file(*_bucket_and_key(uri), str(path))
        else:
            shutil.copyfile(file_path(uri), path)

    def publish(self, path: Path, uri: str) -> None:
        """Copies the file at `path` to `uri`, making its folder.

        Raises:
            OSError: The place cannot be written.
            boto3.exceptions.S3UploadFailedError: The bucket refuses it, or there is no such bucket.
        """
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


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key
