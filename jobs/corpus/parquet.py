"""Opens Parquet files that users provide, with errors that say what is wrong with a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_END
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import InputError

_MAGIC = b"PAR1"  # at both ends of a file


@contextmanager
def open_parquet(stream: BinaryIO, uri: str) -> Iterator[pq.ParquetFile]:
    """Open the Parquet file in a stream. Its page checksums, if any, are verified. Error messages begin with `uri`.

    Raises:
        InputError: if the file is not Parquet, is encrypted or truncated, or cannot be read by Arrow.
    """
    with _named_damage(uri):
        _check_ends(stream, uri)
        stream.seek(0)
        with pq.ParquetFile(stream, page_checksum_verification=True) as file:
            yield file


@contextmanager
def _named_damage(uri: str) -> Iterator[None]:
    """Turn the errors that Arrow raises for a damaged Parquet file into an InputError that names the file `uri`."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{uri}: damaged Parquet file ({reason}); write it again") from None


def _check_ends(stream: BinaryIO, uri: str) -> None:
    stream.seek(0)
    first, size = stream.read(len(_MAGIC)), stream.seek(0, SEEK_END)
    if first == b"PARE":
        raise InputError(f"{uri}: an encrypted Parquet file; decrypt it first")
    if first != _MAGIC:
        raise InputError(
            f"{uri}: its content is not Parquet, though its name says so; rename the file so that its name matches"
            " its content"
        )
    stream.seek(max(0, size - len(_MAGIC)))
    if size < 2 * len(_MAGIC) or stream.read() != _MAGIC:
        raise InputError(f"{uri}: truncated Parquet file: its end is missing; copy it again")
