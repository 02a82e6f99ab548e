"""URIs of files and folders, as pure functions of strings.

A URI is ``file:///...`` (percent-encoded, as `pathlib.Path.as_uri` encodes it) or ``s3://bucket/key`` (the key is not
encoded). Users give paths or URIs; `to_uri` returns URIs. No function here reads a disk or a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from jobs.errors import InputError


def to_uri(path_or_uri: str) -> str:
    """Return the URI of a path or URI that a user gave."""
    text = re.sub("^file:(//localhost)?/(?!/)", "file:///", str(path_or_uri).strip())
    if not text:
        raise InputError("a path or URI is empty; give a local path, file:///... or s3://bucket/prefix")
    _check_encodable(text, os.fsencode)  # which takes the names that are not UTF-8, as `os` gives them
    scheme, found, rest = text.partition("://")
    if not found:
        try:
            return Path(text).expanduser().absolute().as_uri()
        except RuntimeError:
            raise InputError(f"{text}: no such user has a home folder; write the path in full") from None
    if scheme == "file":
        if not rest.startswith("/"):
            raise InputError(f"{text}: a file URI has three slashes and an absolute path, as in file:///data/lake")
        if "%00" in rest:
            raise InputError(f"{text}: a path or URI cannot hold NUL (%00); correct it")
        return "file://" + (rest.rstrip("/") or "/")
    if scheme in ("s3", "s3a", "s3n"):  # Hadoop's connectors have the last two names
        if not rest.split("/")[0]:
            raise InputError(f"{text}: no bucket; write s3://bucket/prefix")
        _check_encodable(text, str.encode)
        return "s3://" + rest.rstrip("/")
    raise InputError(f"{text}: unknown scheme '{scheme}'; use a local path, file:///... or s3://bucket/prefix")


def _check_encodable(text: str, encode: Callable[[str], bytes]) -> None:
    """Raise InputError if no file can have this name."""
    try:
        if b"\0" not in encode(text):
            return
    except UnicodeEncodeError:
        pass
    raise InputError(f"{text!r}: a path or URI cannot hold NUL or half of a surrogate pair; correct it")


def is_s3(uri: str) -> bool:
    """Return whether the URI is one of S3."""
    return uri.startswith("s3://")


def local_path(uri: str) -> Path:
    """Return the path of a ``file://`` URI. Its name need not be valid UTF-8."""
    if not uri.startswith("file://"):
        raise InputError(f"{uri}: not a local file or folder; give a file:// URI")
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


def readable(uri: str) -> str:
    """Return a URI as users read and type it: the path of a local file, else the URI."""
    return uri if is_s3(uri) else str(local_path(uri))


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an ``s3://`` URI. The key has no leading slash of its own."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def join(uri: str, *names: str) -> str:
    """Return the URI of `names` below `uri`. A name may contain slashes, spaces and any other character."""
    tail = "/".join(name.strip("/") for name in names)
    return f"{uri.rstrip('/')}/{tail if is_s3(uri) else quote(os.fsencode(tail))}"


def base_name(uri: str) -> str:
    """Return the last name of a URI, decoded."""
    name = uri.rstrip("/").rpartition("/")[2]
    return name if is_s3(uri) else os.fsdecode(unquote_to_bytes(name))


def relative_name(uri: str, folder_uri: str) -> str:
    """Return the name of `uri` below `folder_uri`, decoded."""
    if is_s3(uri):
        return uri.removeprefix(join(folder_uri, ""))
    return local_path(uri).relative_to(local_path(folder_uri)).as_posix()


def ending_of(name: str, endings: Iterable[str]) -> str:
    """Return the longest of `endings`, such as ``.txt.gz``, with which a name or URI ends; "" if it has none.

    Endings are lower case, and names count in either case: ``B.JSONL`` is a ``.jsonl`` file.
    """
    lower = name.lower()
    return max((ending for ending in endings if lower.endswith(ending)), key=len, default="")


def without_ending(name: str, endings: Iterable[str]) -> str:
    """Return a name without the one of `endings` that it has (see `ending_of`)."""
    return name[: len(name) - len(ending_of(name, endings))]
