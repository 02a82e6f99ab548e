"""Read-only pages with the files of runs and the logs of steps, in Airflow's API server: ``/nightjar/lake/runs/...``.

Users need the right to read the task logs of the DAG `train_llm`. Only files below the lake's folders `runs` and `logs`
are shown. Only a run's report is served as HTML, since a model may have written the text in any other file. The report
has no scripts, and its headers keep browsers from running any.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from http import HTTPStatus
from io import BufferedIOBase
from typing import IO, cast
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from jobs.errors import DamagedError
from jobs.lake.layout import REPORT, Lake
from jobs.lake.names import confined
from jobs.lake.store import Store
from jobs.lake.uri import join, relative_name
from nightjar.web.access import READ_LOGS
from nightjar.web.reading import Source
from nightjar.web.responses import FILE_HEADERS, respond

_ROOTS = ("runs", "logs")
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".md", ".log")
_ZIPPED_LOG = ".gz"
_BLOCK_BYTES = 2**20
_HEADERS = FILE_HEADERS | {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-downloads"
}

router = APIRouter()


@router.get("/lake/{name:path}", dependencies=[READ_LOGS])
def show(name: str, request: Request, source: Source) -> Response:
    """Return a page with the files of a folder if the name ends with a slash, else the file with this name."""
    store, uri = source.store, place(name, source.lake)
    if name.endswith("/"):
        return _folder_page(store, uri, name, request)
    info = store.info(uri)
    if info is None and store.is_folder(uri):
        return RedirectResponse(f"{request.scope['root_path']}/lake/{quote(name)}/")
    if info is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"{name}: the run does not have this file, or not yet")
    is_log = name.endswith(_ZIPPED_LOG) and name.startswith("logs/")
    if is_log or name.endswith(_TEXTS):
        return StreamingResponse(
            _blocks(store, uri, unzip=is_log), media_type="text/plain; charset=utf-8", headers=_HEADERS
        )
    if name.endswith(f"/stats/{REPORT}"):
        return StreamingResponse(
            _blocks(store, uri, unzip=False), media_type="text/html; charset=utf-8", headers=_HEADERS
        )
    saved_as = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.rpartition('/')[2])}"}
    return StreamingResponse(
        _blocks(store, uri, unzip=False), media_type="application/octet-stream", headers=_HEADERS | saved_as
    )


def place(name: str, lake: Lake) -> str:
    """Return the URI of a name in the lake. Raise `HTTPException` if the name leads out of the shown folders."""
    root, _, rest = name.removesuffix("/").partition("/")
    if root not in _ROOTS:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"only the folders {' and '.join(_ROOTS)} of the lake are shown here")
    try:
        return confined(join(lake.uri, root), rest) if rest or "/" in name.removesuffix("/") else join(lake.uri, root)
    except DamagedError:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"{name}: leads out of the lake") from None


def _folder_page(store: Store, uri: str, name: str, request: Request) -> Response:
    base = f"{request.scope['root_path']}/lake"
    rows = [("../", f"{base}/{quote(name.removesuffix('/').rpartition('/')[0])}/", "")] if name.count("/") > 1 else []
    rows += [(f"{each}/", f"{base}/{quote(name + each)}/", "") for each in store.list_folders(uri)]
    files = store.list_files(uri, lambda _: False)
    names = [(relative_name(file.uri, uri), file.size) for file in files]
    rows += [(each, f"{base}/{quote(name + each)}", f"{size:,} bytes") for each, size in names if "/" not in each]
    return respond(request, "folder.html", name=name, rows=rows, is_empty=not (files or len(rows) > 1))


def _blocks(store: Store, uri: str, *, unzip: bool) -> Iterator[bytes]:
    with store.open_input(uri) as file:
        source = cast("BufferedIOBase", gzip.GzipFile(fileobj=cast("IO[bytes]", file))) if unzip else file
        while block := source.read(_BLOCK_BYTES):
            yield block
