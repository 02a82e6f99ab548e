"""Write zip files that are reproducible: the same files give the same bytes on every machine."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip entry can have
_UNIX = 3
_FILE_MODE = 0o644 << 16


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of `files` by name, in the order given.

    Entries have a fixed date, system and file mode. They are stored uncompressed because versions of zlib differ in
    their output.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EARLIEST_DATE)
            entry.create_system, entry.external_attr = _UNIX, _FILE_MODE
            archive.writestr(entry, data)
    return buffer.getvalue()
