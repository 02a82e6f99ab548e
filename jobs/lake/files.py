"""The types of a listing of files, on local disks and in S3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Reaches = Callable[[str], bool]
"""Takes the relative name of a subfolder, and returns whether the files in it are listed as well."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that exists: its URI, size in bytes, and time of the last change in seconds since 1970."""

    uri: str
    size: int
    modified_at: float
    identity: tuple[int, ...] | None = field(default=None, compare=False)
    """Equal for two names of the same local file, through hard or symbolic links. None if it is not known."""
