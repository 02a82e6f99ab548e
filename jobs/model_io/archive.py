"""A model folder as one zip file, whose bytes depend only on the content.

Files are not compressed, since weights hardly shrink and the output of zlib differs between versions. Archives may come
from untrusted sources. So only plain file names are accepted, nothing is extracted to a disk, and a file is read only
if it has the size that the manifest lists.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from jobs.errors import DamagedError, InputError
from jobs.lake.layout import MANIFEST
from jobs.lake.manifest import check_content, parse_manifest
from jobs.lake.models import open_archive
from jobs.lake.names import is_plain

_MOST_MANIFEST_BYTES = 1 << 20


def pack(contents: Mapping[str, bytes]) -> bytes:
    """Return the zip file of `contents`, which maps file names to bytes."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # always Unix, so that all systems write the same bytes
            info.external_attr = 0o100644 << 16  # a plain file
            archive.writestr(info, contents[name])
    return sink.getvalue()


def unpack(uri: str) -> dict[str, bytes]:
    """Return the manifest of the archive at `uri` and the files that it lists, checked by size and hash.

    Raises:
        InputError: if there is no such file, or it is not an archive of a model folder.
        DamagedError: if a file of the archive is missing, truncated or altered, or a name is not a plain file name.
    """
    try:
        with open_archive(uri) as archive:
            return _read(uri, archive)
    except FileNotFoundError:
        raise InputError(f"{uri}: no such file; check --model") from None


def _read(uri: str, archive: zipfile.ZipFile) -> dict[str, bytes]:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    for name in sizes:
        if not is_plain(name) or name.startswith(".") or set(name) & set("/:"):
            raise DamagedError(f"{uri}: contains the name {name!r}; only plain file names are accepted")
    if sizes.get(MANIFEST, _MOST_MANIFEST_BYTES) >= _MOST_MANIFEST_BYTES:
        raise InputError(f"{uri}: not an archive of a model folder (no {MANIFEST} in it, or one that is too large)")
    contents = {MANIFEST: archive.read(MANIFEST)}
    for entry in parse_manifest(contents[MANIFEST], f"{uri}/{MANIFEST}").files:
        if sizes.get(entry.name) != entry.size:
            found = f"{sizes[entry.name]} bytes of" if entry.name in sizes else "no"
            raise DamagedError(
                f"{uri}: has {found} {entry.name}, but its manifest lists {entry.size} bytes; export the model again"
            )
        contents[entry.name] = archive.read(entry.name)
        check_content(f"{uri}/{entry.name}", entry, contents[entry.name])
    return contents
