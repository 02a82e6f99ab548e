"""Read the lake for the pages of runs: never a file outside the lake, and not more often than needed.

All users of an API server share what was read. So many open pages of a run cost as much as one page.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from fastapi import Depends, HTTPException

from jobs.errors import DamagedError, LakeError
from jobs.lake.files import FileInfo
from jobs.lake.layout import Lake, Run
from jobs.lake.names import confined
from jobs.lake.store import BUFFER_BYTES, Store
from jobs.lake.uri import is_s3, join, relative_name
from jobs.results.catalog import Catalog, Page, Query
from jobs.results.report import Report, read_report
from jobs.results.rows import LiveParts
from nightjar import aws, settings

PATIENCE_SECONDS = 3.0
"""How long a request waits for the first read of a large lake. After that, the answer is a page that says to wait."""
FRESH_SECONDS = 2.0
"""Shortest time for which a report is reused before it is read again."""
MOST_FRESH_SECONDS = 60.0
_SHARE = 10
"""Seconds for which a report is reused, for each second that it took to read. So reading takes about a tenth of the
time."""
RETRY_SECONDS = 5.0
"""How long a failed request to S3 is retried."""
MOST_BYTES = 1 << 26
"""Maximum size of a file, in bytes, that a page of a run reads."""
MOST_REPORTS = 16
"""Maximum number of reports that are kept in memory."""


class ShownStore(Store):
    """The store of a lake for the pages. A symbolic link that leads out of the lake's folders counts as missing."""

    def __init__(self, lake: Lake, retry_seconds: float) -> None:
        super().__init__(aws.s3_client, retry_seconds=retry_seconds)
        self._lake = lake

    def _files(self, uri: str) -> Any:
        self._check(uri)
        return super()._files(uri)

    def _check(self, uri: str) -> None:
        if is_s3(uri):
            return
        root, _, name = relative_name(uri, self._lake.uri).partition("/")
        try:
            if name:
                confined(join(self._lake.uri, root), name)
        except DamagedError:
            raise FileNotFoundError(uri) from None

    def open_input(self, uri: str, buffer_bytes: int = BUFFER_BYTES) -> BufferedReader:
        """Open a file for reading."""
        self._check(uri)
        return super().open_input(uri, buffer_bytes)

    def read_bytes(self, uri: str) -> bytes:
        """Return the content of a file. Raise LakeError if it is so large that it could fill the server's memory."""
        if (info := self.info(uri)) is None:
            raise FileNotFoundError(uri)
        if info.size > MOST_BYTES:
            raise LakeError(f"{uri}: has {info.size:,} bytes; pages read at most {MOST_BYTES:,}")
        return super().read_bytes(uri)

    def info(self, uri: str) -> FileInfo | None:
        """Return the size and the time of the last change of a file, or None if there is no file."""
        with suppress(FileNotFoundError):
            return super().info(uri)
        return None

    def is_folder(self, uri: str) -> bool:
        """Return whether there is a folder at `uri`."""
        with suppress(FileNotFoundError):
            return super().is_folder(uri)
        return False

    def list_files(self, uri: str, *options: Any, **named: Any) -> list[FileInfo]:
        """Return all files below a folder, or [] if there is no such folder."""
        with suppress(FileNotFoundError):
            return super().list_files(uri, *options, **named)
        return []

    def list_folders(self, uri: str) -> list[str]:
        """Return the names of the folders in a folder, or [] if there is no such folder."""
        with suppress(FileNotFoundError):
            return super().list_folders(uri)
        return []


class LakeReader:
    """Reads what the pages show of one lake, and keeps it in memory.

    Args:
        lake: The lake.
        file: A file in which the summaries of runs are kept for later processes. Default: in the user's cache folder.
        patience_seconds: How long a request waits for the first read of the lake.
        retry_seconds: How long a failed request to S3 is retried.
    """

    def __init__(
        self,
        lake: Lake,
        file: Path | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.lake = lake
        self.store = ShownStore(lake, retry_seconds)
        self._patience_seconds = patience_seconds
        self._catalog = Catalog(lake, self.store, file)
        self._reading = Lock()
        self._guard = Lock()
        self._first: Future[Page] | None = None
        self._reports: OrderedDict[str, _Kept] = OrderedDict()

    def page(self, query: Query) -> Page | None:
        """Return a page of the list of runs. Return None if the first read of the lake is still in progress."""
        with self._guard:
            if self._first is None:
                self._first = _in_background(lambda: self._catalog.page(query))
            first = self._first
        try:
            first.result(self._patience_seconds)
        except TimeoutError:
            if not first.done():
                return None
            self._forget(first)
            raise
        except BaseException:
            self._forget(first)
            raise
        with self._reading:  # the catalog is not thread-safe
            return self._catalog.page(query)

    def _forget(self, failed: Future[Page]) -> None:
        """Discard the first read of the lake if it failed, so that the next request reads the lake again."""
        with self._guard:
            if self._first is failed:
                self._first = None

    def run(self, folder: str) -> Run:
        """Return a run by its folder. Raise `HTTPException` if the folder leads out of the lake or is not a run's."""
        missing = HTTPException(HTTPStatus.NOT_FOUND, "the lake has no such run")
        try:
            confined(self.lake.runs, folder)
        except DamagedError:
            raise missing from None
        run = Run(self.lake.uri, folder)
        # By the number of slashes: the earlier layout, or today's, in which a run whose first task failed has a folder
        # but no configuration.
        is_run = {0: lambda: self.store.exists(run.config), 2: lambda: self.store.is_folder(run.uri)}
        if not is_run.get(folder.count("/"), lambda: False)():
            raise missing
        return run

    def report(self, run: Run) -> tuple[Report, float]:
        """Return the report of a run, and the number of seconds for which the report is reused."""
        with self._guard:
            kept = self._reports.setdefault(run.folder, _Kept(LiveParts(run, self.store)))
            self._reports.move_to_end(run.folder)
            while len(self._reports) > MOST_REPORTS:
                self._reports.popitem(last=False)
        with kept.reading:
            if kept.report is None or time.monotonic() >= kept.until:
                started = time.monotonic()
                kept.report = read_report(run, self.store, parts=kept.parts)
                took = time.monotonic() - started
                kept.fresh_seconds = min(MOST_FRESH_SECONDS, max(FRESH_SECONDS, _SHARE * took))
                kept.until = started + took + kept.fresh_seconds
            return kept.report, kept.fresh_seconds


@dataclass(eq=False)
class _Kept:
    """A report that was read, and the time until which it is reused."""

    parts: LiveParts
    report: Report | None = None
    until: float = 0.0
    fresh_seconds: float = FRESH_SECONDS

    def __post_init__(self) -> None:
        self.reading = Lock()


def _in_background(function: Callable[[], Page]) -> Future[Page]:
    with_one_thread = ThreadPoolExecutor(1, "nightjar-runs")
    try:
        return with_one_thread.submit(function)
    finally:
        with_one_thread.shutdown(wait=False)


def reader() -> LakeReader:
    """Return the reader of the deployment's lake, which this process keeps."""
    return _reader(settings.load().lake)


@lru_cache(maxsize=1)
def _reader(lake: Lake) -> LakeReader:
    return LakeReader(lake)


Source = Annotated[LakeReader, Depends(reader)]
"""The reader of the deployment's lake, as an argument of a route."""
