"""Reading and writing the lake: whole objects, shards, manifests; the same on a local disk and on S3.

A dataset exists when its manifest does. Shards are written first, under names that no other attempt uses;
``_manifest.json`` is published last, only if absent; readers read only what a manifest lists. So nothing that a crash
leaves behind is ever taken for data. Streams go through `pyarrow.fs`; conditional writes, which it lacks, through
boto3 (``If-None-Match``) or a hard link.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import boto3
import pyarrow as pa
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError
from pyarrow import fs

from jobs.errors import DamagedError, InputError
from jobs.lake.atomic import temporary_beside
from jobs.lake.layout import MANIFEST
from jobs.lake.retry import LAKE_ERRORS, one_line, patient, refuse_full_disk
from jobs.lake.uri import base_name, bucket_and_key, is_s3, join, local_path

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FORMAT_VERSION = 1
_CHUNK_BYTES = 1 << 20
_CACHED_SECONDS = 3 * 24 * 3600


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that was found: where, and how many bytes."""

    uri: str
    size: int


@dataclass(frozen=True)
class FileEntry:
    """A file that a manifest lists: name below the dataset's folder, bytes, hash, and counts of what is in it."""

    name: str
    size: int
    sha256: str
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What a dataset is made of. Its publication is what makes the dataset exist."""

    kind: str
    fingerprint: str
    files: tuple[FileEntry, ...]
    counts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def entries(self, prefix: str) -> list[FileEntry]:
        """The files whose names start with `prefix`, in the manifest's order."""
        return [entry for entry in self.files if entry.name.startswith(prefix)]


class ShardWriter:
    """A binary file object that counts and hashes what is written to it."""

    closed = False

    def __init__(self, stream: IO[bytes] | pa.NativeFile, name: str) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._size = 0
        self.name = name

    def write(self, data: bytes) -> int:
        """Append `data`."""
        self._hash.update(data)
        size = memoryview(data).nbytes
        self._size += size
        self._stream.write(data)
        return size

    def flush(self) -> None:
        """Do nothing: the stream is flushed when it is closed."""

    def entry(self, **counts: int) -> FileEntry:
        """The manifest's line for this file; valid once the file is complete."""
        return FileEntry(self.name, self._size, self._hash.hexdigest(), counts)


@lru_cache(maxsize=1)
def s3_client() -> S3Client:
    """The S3 client of this process; the endpoint, credentials and region come from boto3's usual places."""
    return boto3.client("s3", config=BotoConfig(retries={"mode": "standard", "max_attempts": 3}))


@patient
def open_input(uri: str) -> pa.NativeFile:
    """Open a file for reading at any position.

    Raises:
        FileNotFoundError: if there is none.
    """
    filesystem, path = _filesystem(uri)
    return filesystem.open_input_file(path)


@patient
def read_bytes(uri: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not is_s3(uri):
        return local_path(uri).read_bytes()
    bucket, key = bucket_and_key(uri)
    try:
        return s3_client().get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            raise FileNotFoundError(uri) from None
        raise


def read_json(uri: str) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: if there is none.
        DamagedError: if it is not JSON.
    """
    data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError as error:
        raise DamagedError(f"{uri}: not valid JSON ({error}); delete it and run the step again") from None


@patient
def write_bytes(uri: str, data: bytes) -> None:
    """Put `data` in place of what is there, at once: a reader sees the old content or the new."""
    _write_bytes(uri, data)


def _write_bytes(uri: str, data: bytes) -> None:
    if is_s3(uri):
        bucket, key = bucket_and_key(uri)
        s3_client().put_object(Bucket=bucket, Key=key, Body=data)
        return
    path = local_path(uri)
    with temporary_beside(path, data) as temporary:
        temporary.replace(path)


def write_json(uri: str, value: Any) -> None:
    """Put `value` as JSON in place of what is there."""
    write_bytes(uri, json.dumps(value, indent=2).encode() + b"\n")


@patient
def publish(uri: str, data: bytes) -> bool:
    """Write `data` unless something is there already; return whether it was written."""
    if not is_s3(uri):
        path = local_path(uri)
        with temporary_beside(path, data) as temporary:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
        return True
    bucket, key = bucket_and_key(uri)
    try:
        s3_client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
            return False
        raise
    return True


@patient
def exists(uri: str) -> bool:
    """Whether there is a file at `uri`."""
    filesystem, path = _filesystem(uri)
    return filesystem.get_file_info(path).type == fs.FileType.File


@patient
def list_files(uri: str) -> list[FileInfo]:
    """All files below the folder `uri`, sorted by URI; none if there is no such folder."""
    filesystem, path = _filesystem(uri)
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    start = len(path.rstrip("/")) + 1
    files = [FileInfo(join(uri, info.path[start:]), info.size) for info in found if info.type == fs.FileType.File]
    return sorted(files, key=lambda info: info.uri)


@patient
def list_folders(uri: str) -> list[str]:
    """The names of the folders in the folder `uri`, sorted; none if there is no such folder."""
    filesystem, path = _filesystem(uri)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)


@patient
def modified_at(uri: str) -> float | None:
    """When the file at `uri` was written last, in seconds; None if there is no file."""
    filesystem, path = _filesystem(uri)
    info = filesystem.get_file_info(path)
    return (info.mtime_ns or 0) / 1e9 if info.type == fs.FileType.File else None


@patient
def delete_folder(uri: str) -> None:
    """Delete the folder `uri` and all below it; nothing happens if there is none."""
    filesystem, path = _filesystem(uri)
    if filesystem.get_file_info(path).type == fs.FileType.Directory:
        filesystem.delete_dir(path)


@patient
def delete_file(uri: str) -> None:
    """Delete the file at `uri`; nothing happens if there is none."""
    if not is_s3(uri):
        local_path(uri).unlink(missing_ok=True)
        return
    bucket, key = bucket_and_key(uri)
    s3_client().delete_object(Bucket=bucket, Key=key)


def check_writable(uri: str) -> None:
    """Write and delete a small file below `uri`.

    Raises:
        InputError: if that cannot be done.
    """
    probe = join(uri, f".write-test-{uuid.uuid4().hex[:8]}")
    try:
        _write_bytes(probe, b"")  # without patience: whoever names a place that does not answer hears of it at once
        delete_file(probe)
    except LAKE_ERRORS as error:
        reason = one_line(error)
        raise InputError(f"{uri}: the lake cannot be written to ({reason}); choose another --lake") from None


@contextmanager
def create_shard(folder_uri: str, stem: str, suffix: str) -> Iterator[ShardWriter]:
    """Write a new file below `folder_uri`, under a name that no other attempt uses (``<stem>-<random><suffix>``).

    `stem` may lead into folders (``train/00000``). The file counts only once a manifest lists its `ShardWriter.entry`.
    """
    name = f"{stem}-{uuid.uuid4().hex[:12]}{suffix}"
    uri = join(folder_uri, name)
    if is_s3(uri):
        filesystem, path = _filesystem(uri)
        with filesystem.open_output_stream(path) as stream:
            yield ShardWriter(stream, name)
        return
    local = local_path(uri)
    local.parent.mkdir(parents=True, exist_ok=True)
    try:
        with local.open("xb") as file:
            yield ShardWriter(file, name)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        local.unlink(missing_ok=True)
        if isinstance(error, OSError):
            refuse_full_disk(uri, error)
        raise


def write_file(folder_uri: str, name: str, data: bytes, **counts: int) -> FileEntry:
    """Write a whole file below `folder_uri` under its own name and return the manifest's line for it."""
    write_bytes(join(folder_uri, name), data)
    return FileEntry(name, len(data), hashlib.sha256(data).hexdigest(), counts)


def read_file(folder_uri: str, entry: FileEntry) -> bytes:
    """The content of a file that a manifest lists, checked by size and hash; for files that fit in memory.

    Raises:
        DamagedError: if the file is missing, truncated or altered.
    """
    uri = join(folder_uri, entry.name)
    try:
        data = read_bytes(uri)
    except FileNotFoundError:
        raise DamagedError(f"{uri}: missing, though the manifest lists it; {_remedy(uri)}") from None
    check_content(uri, entry, data)
    return data


def check_content(uri: str, entry: FileEntry, data: bytes) -> None:
    """Check that `data`, read from `uri`, is what `entry` promises.

    Raises:
        DamagedError: if it is truncated or altered.
    """
    _check(uri, entry.size, len(data))
    _check_hash(uri, entry.sha256, hashlib.sha256(data).hexdigest())


def publish_manifest(folder_uri: str, manifest: Manifest) -> bool:
    """Make the dataset exist; return False if an equal one was published before."""
    return publish(join(folder_uri, MANIFEST), manifest_bytes(manifest))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of a manifest's file."""
    return json.dumps(asdict(manifest), indent=2).encode() + b"\n"


def read_manifest(folder_uri: str) -> Manifest | None:
    """The manifest of the dataset at `folder_uri`, or None if there is no dataset.

    Raises:
        DamagedError: if there is a manifest that cannot be read.
    """
    uri = join(folder_uri, MANIFEST)
    try:
        data = read_bytes(uri)
    except FileNotFoundError:
        return None
    return parse_manifest(data, uri)


def parse_manifest(data: bytes, uri: str) -> Manifest:
    """Read what `manifest_bytes` wrote.

    Raises:
        DamagedError: if it is something else.
    """
    try:
        values = json.loads(data)
        manifest = Manifest(**{**values, "files": tuple(FileEntry(**entry) for entry in values["files"])})
        if any({"", ".", ".."} & set(entry.name.split("/")) for entry in manifest.files):
            raise ValueError("a name that leads out of the folder")
    except (ValueError, KeyError, TypeError, AttributeError):
        manifest = None
    if manifest is None or manifest.format_version != FORMAT_VERSION:
        raise DamagedError(f"{uri}: not a manifest of format {FORMAT_VERSION}; {_remedy(uri)}")
    return manifest


def verify_sizes(folder_uri: str, manifest: Manifest) -> None:
    """Check that every file of the manifest is there with its size: one listing, no reading.

    Raises:
        DamagedError: naming the first file that is not.
    """
    sizes = {info.uri: info.size for info in list_files(folder_uri)}
    for entry in manifest.files:
        _check(join(folder_uri, entry.name), entry.size, sizes.get(join(folder_uri, entry.name)))


def verified_file(folder_uri: str, entry: FileEntry) -> Path:
    """A local file with the content that `entry` promises, checked by size and hash: ready to be memory-mapped.

    A file on S3 is copied once to a cache on the local disk, under its hash.

    Raises:
        DamagedError: if the file is missing, truncated or altered.
    """
    uri = join(folder_uri, entry.name)
    if is_s3(uri):
        return _cached(uri, entry)
    path = local_path(uri)
    try:
        state = path.stat()
    except FileNotFoundError:
        _check(uri, entry.size, None)
        raise
    _check(uri, entry.size, state.st_size)
    _check_hash(uri, entry.sha256, _hash_file(path, state.st_size, state.st_mtime_ns))
    return path


@patient
def _cached(uri: str, entry: FileEntry) -> Path:
    """A copy of a file of S3 on this machine, kept until it was not used for some days."""
    folder = Path(tempfile.gettempdir()) / f"nightjar-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to somebody else, who could alter what is read; remove it, or set TMPDIR")
    path = folder / entry.sha256
    if path.exists():
        path.touch()
    else:
        _forget_unused(folder)
        temporary = folder / f"{entry.sha256}.{uuid.uuid4().hex[:8]}"
        try:
            with open_input(uri) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
            _check(uri, entry.size, temporary.stat().st_size)
            _check_hash(uri, entry.sha256, _hash_file(temporary, entry.size, 0))
            temporary.replace(path)
        except FileNotFoundError:
            _check(uri, entry.size, None)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _forget_unused(folder: Path) -> None:
    oldest = time.time() - _CACHED_SECONDS
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may forget it as well
            if path.stat().st_mtime < oldest:
                path.unlink()


def _check(uri: str, expected: int, found: int | None) -> None:
    if found is None:
        raise DamagedError(f"{uri}: missing, though the manifest lists it; {_remedy(uri)}")
    if found != expected:
        raise DamagedError(f"{uri}: has {found} bytes, the manifest says {expected}; {_remedy(uri)}")


def _check_hash(uri: str, expected: str, found: str) -> None:
    if found != expected:
        raise DamagedError(f"{uri}: content differs from the manifest's sha256; {_remedy(uri)}")


def _remedy(uri: str) -> str:
    folder = uri.rpartition("/")[0]
    if base_name(folder) in ("train", "valid"):
        folder = folder.rpartition("/")[0]
    return f"delete {folder} and run again to make it anew"


@lru_cache(maxsize=4096)
def _hash_file(path: Path, size: int, modified_ns: int) -> str:
    """The hash of a file's content; remembered while its size and time of change stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of `uri` and the path in it (`pyarrow` wants keys as they are, not percent-encoded)."""
    if not is_s3(uri):
        return fs.LocalFileSystem(), str(local_path(uri))
    bucket, key = bucket_and_key(uri)
    return _s3_filesystem(bucket), f"{bucket}/{key}".rstrip("/")


@lru_cache(maxsize=16)
def _s3_filesystem(bucket: str) -> fs.FileSystem:
    """The file system of a bucket: Arrow finds its region; its client repeats what fails while a stream is open."""
    found = fs.FileSystem.from_uri(f"s3://{bucket}")[0]
    assert isinstance(found, fs.S3FileSystem)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    strategy = fs.AwsStandardS3RetryStrategy(max_attempts=10)
    return fs.S3FileSystem(region=found.region, endpoint_override=endpoint, retry_strategy=strategy)
