"""URIs of files and folders, as pure functions of strings.

A URI is ``file:///...`` (percent-encoded, as `pathlib.Path.as_uri` makes it) or ``s3://bucket/key`` (the key as it is).
People give paths; `to_uri` makes URIs of them. Nothing here touches a disk or a network.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

from jobs.errors import InputError


def to_uri(path_or_uri: str) -> str:
    """Return the URI of a place that a person named by a path or a URI.

    Raises:
        InputError: if the scheme is neither ``file`` nor ``s3``, or an S3 URI names no bucket.
    """
    text = str(path_or_uri).strip()
    if not text:
        raise InputError("a path or URI is empty: give a local path, file:///... or s3://bucket/prefix")
    scheme, found, rest = text.partition("://")
    if not found:
        return Path(text).expanduser().absolute().as_uri()
    if scheme == "file":
        if not rest.startswith("/"):
            raise InputError(f"{text}: a file URI has three slashes and an absolute path, as in file:///data/lake")
        return "file://" + (rest.rstrip("/") or "/")
    if scheme in ("s3", "s3a", "s3n"):  # Hadoop's connectors have the last two names
        if not rest.split("/")[0]:
            raise InputError(f"{text}: no bucket; write s3://bucket/prefix")
        return "s3://" + rest.rstrip("/")
    raise InputError(f"{text}: unknown scheme '{scheme}'; use a local path, file:///... or s3://bucket/prefix")


def is_s3(uri: str) -> bool:
    """Whether `uri` names a place in S3."""
    return uri.startswith("s3://")


def local_path(uri: str) -> Path:
    """The path that a ``file://`` URI names."""
    if not uri.startswith("file://"):
        raise InputError(f"{uri}: not a local place; a file:// URI is needed here")
    return Path(unquote(uri.removeprefix("file://")))


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The bucket and the key (without a leading slash) that an ``s3://`` URI names."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def join(uri: str, *names: str) -> str:
    """The place below `uri` that `names` lead to; names may hold slashes, spaces and any letter."""
    tail = "/".join(name.strip("/") for name in names)
    return f"{uri.rstrip('/')}/{tail if is_s3(uri) else quote(tail)}"


def base_name(uri: str) -> str:
    """The last name of a URI, decoded."""
    name = uri.rstrip("/").rpartition("/")[2]
    return name if is_s3(uri) else unquote(name)
