"""What a listing of files says, the same for local disks and S3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Reaches = Callable[[str], bool]
"""Returns whether the listing of a folder goes on into a folder below it, which is given by its relative name."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that exists: its URI, size in bytes, and time of the last change in seconds since 1970."""

    uri: str
    size: int
    modified_at: float
    identity: tuple[int, ...] | None = field(default=None, compare=False)
    """Equal for two names of one local file, by links of any kind. None if it is not known."""
