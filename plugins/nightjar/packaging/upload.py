"""Upload of a folder with large files, by whoever has AWS credentials in the environment."""

from __future__ import annotations

from pathlib import Path

from jobs.errors import LakeError
from jobs.lake import store
from jobs.lake.retry import one_line
from jobs.lake.uri import join
from nightjar.packaging.build import SUMS


def copy_folder(folder: Path, folder_uri: str) -> None:
    """Copy a package or a wheelhouse to the lake. It is complete when it has its sums, which are copied last.

    Raises:
        LakeError: if the lake cannot be written.
    """
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == SUMS):
            store.copy(path.as_uri(), join(folder_uri, path.name))
    except OSError as error:
        raise LakeError(f"cannot be uploaded to {folder_uri} ({one_line(error)})") from None
