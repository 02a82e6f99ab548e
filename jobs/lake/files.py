"""The types of a listing of files, on local disks and in S3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Reaches = Callable[[str], bool]
"""A function that takes the relative name of a subfolder, and returns whether to list the files in it as well."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that exists: its URI, size in bytes, and time of the last change in seconds since 1970."""

    uri: str
    size: int
    modified_at: float
    identity: tuple[int, ...] | None = field(default=None, compare=False)
    """Equal for two URIs that lead to the same local file by hard or symbolic links. None if not known, and in S3."""
