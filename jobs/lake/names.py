"""Checks of file names from a lake, a manifest, an archive or a web form, so that no name leads out of its folder.

Without these checks, anyone who can write to a lake could make Airflow, a node or a user's machine read or write any
file on that machine.
"""

from __future__ import annotations

import os

from jobs.errors import DamagedError, NightjarError, shorten
from jobs.lake.uri import is_s3, join, local_path

_MOST_BYTES = 255


def is_plain(name: object) -> bool:
    """Return whether a value is a relative name, perhaps with slashes, that cannot lead out of a folder.

    Names with backslashes or unprintable characters are refused as well. Nightjar writes no such names, and other
    programs could misread them.
    """
    if not isinstance(name, str) or "\\" in name or not name.isprintable():
        return False
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and all(len(os.fsencode(part)) <= _MOST_BYTES for part in parts)


def below(folder_uri: str, name: object, error: type[NightjarError] = DamagedError) -> str:
    """Return the URI of `name` in a folder; raise `error` if `is_plain` refuses the name. No disk is read."""
    if not is_plain(name):
        raise error(
            f"{folder_uri}: {shorten(repr(name))} is not a valid name for a file in this folder; remove this name"
        )
    return join(folder_uri, str(name))


def confined(folder_uri: str, name: object, error: type[NightjarError] = DamagedError) -> str:
    """Return the URI of `name` as `below` does. Raise `error` also if a local link leads out of the folder."""
    uri = below(folder_uri, name, error)
    if not is_s3(uri):
        root, real = (os.path.realpath(local_path(each)) for each in (folder_uri, uri))
        if os.path.commonpath((root, real)) != root:
            raise error(f"{uri}: is a link that leads out of {folder_uri}; remove it")
    return uri
