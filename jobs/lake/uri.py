"""Pure functions of strings for the URIs of files and folders.

A URI is ``file:///...`` (percent-encoded, as `pathlib.Path.as_uri` encodes it) or ``s3://bucket/key`` (the key is not
encoded). `to_uri` makes a URI of a path or URI that a user gave. No function here reads a disk or the network.
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
    _check_encodable(text, os.fsencode)  # accepts names that are not UTF-8, which `os` returns with surrogates
    scheme, found, rest = text.partition("://")
    if not found:
        try:
            return Path(text).expanduser().absolute().as_uri()
        except RuntimeError:
            raise InputError(f"{text}: this user has no home folder; write the path in full") from None
    if scheme == "file":
        if not rest.startswith("/"):
            raise InputError(
                f"{text}: not a valid file URI; write three slashes and an absolute path, as in file:///data/lake"
            )
        if "%00" in rest:
            raise InputError(f"{text}: a path or URI cannot hold NUL (%00); remove it")
        return "file://" + (rest.rstrip("/") or "/")
    if scheme in ("s3", "s3a", "s3n"):  # Hadoop's connectors use the last two schemes
        if not rest.split("/")[0]:
            raise InputError(f"{text}: no bucket; write s3://bucket/prefix")
        _check_encodable(text, str.encode)
        return "s3://" + rest.rstrip("/")
    raise InputError(f"{text}: unknown scheme '{scheme}'; use a local path, file:///... or s3://bucket/prefix")


def _check_encodable(text: str, encode: Callable[[str], bytes]) -> None:
    """Raise InputError if `text` contains NUL or cannot be encoded: no file can have such a name."""
    try:
        if b"\0" not in encode(text):
            return
    except UnicodeEncodeError:
        pass
    raise InputError(f"{text!r}: a path or URI cannot hold NUL or half of a surrogate pair; remove it")


def is_s3(uri: str) -> bool:
    """Return whether the URI starts with ``s3://``."""
    return uri.startswith("s3://")


def local_path(uri: str) -> Path:
    """Return the path of a ``file://`` URI. The path need not be valid UTF-8."""
    if not uri.startswith("file://"):
        raise InputError(f"{uri}: not a local file or folder; give a file:// URI")
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


def readable(uri: str) -> str:
    """Return the form of a URI that users read and type: the path of a local file, else the URI."""
    return uri if is_s3(uri) else str(local_path(uri))


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an ``s3://`` URI. The slash between them is in neither."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def join(uri: str, *names: str) -> str:
    """Return the URI of `names` below `uri`. A name may contain slashes, spaces and any other character."""
    tail = "/".join(name.strip("/") for name in names)
    return f"{uri.rstrip('/')}/{tail if is_s3(uri) else quote(os.fsencode(tail))}"


def base_name(uri: str) -> str:
    """Return the last part of a URI, after its last slash, with percent-encoding removed."""
    name = uri.rstrip("/").rpartition("/")[2]
    return name if is_s3(uri) else os.fsdecode(unquote_to_bytes(name))


def relative_name(uri: str, folder_uri: str) -> str:
    """Return the path of `uri` relative to `folder_uri`, with percent-encoding removed."""
    if is_s3(uri):
        return uri.removeprefix(join(folder_uri, ""))
    return local_path(uri).relative_to(local_path(folder_uri)).as_posix()


def ending_of(name: str, endings: Iterable[str]) -> str:
    """Return the longest of `endings`, such as ``.txt.gz``, with which a name or URI ends.

    Return "" if none fits. Endings are lower case, but the case of a name is ignored: ``B.JSONL`` is a ``.jsonl`` file.
    """
    lower = name.lower()
    return max((ending for ending in endings if lower.endswith(ending)), key=len, default="")


def without_ending(name: str, endings: Iterable[str]) -> str:
    """Return a name without the ending that `ending_of` finds."""
    return name[: len(name) - len(ending_of(name, endings))]
