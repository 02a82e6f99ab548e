"""Copies a folder of large files to a lake; its sums last, so it is whole when they are there."""

from __future__ import annotations

import shutil
from pathlib import Path

import boto3
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import LakeError
from jobs.lake.uri import bucket_and_key, is_s3, join, local_path
from nightjar.packaging.build import SUMS


def copy_folder(folder: Path, place: str) -> None:
    """Copy a package or a wheelhouse to its place in the lake.

    Raises:
        LakeError: if the lake cannot be written.
    """
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: name == SUMS)
    try:
        for name in names:
            _copy(folder / name, join(place, name))
    except (OSError, Boto3Error, BotoCoreError, ClientError) as error:
        raise LakeError(f"cannot be uploaded to {place} ({str(error).splitlines()[0]})") from None


def _copy(source: Path, uri: str) -> None:
    if is_s3(uri):
        boto3.client("s3").upload_file(str(source), *bucket_and_key(uri))
        return
    local_path(uri).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, local_path(uri))
