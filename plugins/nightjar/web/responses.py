"""The responses of all pages: their headers, and how a page is made from a template."""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FunctionLoader

from jobs.results import report

FILE_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
"""The headers of all responses."""
PAGE_HEADERS = FILE_HEADERS | {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'self'"
    )
}
"""The headers of pages made from templates. They let a browser load styles and scripts only from this server."""
ASSETS = {"style.css": "text/css", "page.css": "text/css", "page.js": "text/javascript"}
"""The files that pages load: a dict from file name to MIME type."""


def respond(request: Request, template: str, status: int = HTTPStatus.OK, /, **values: Any) -> HTMLResponse:
    """Return a page made from a template."""
    base = request.scope["root_path"]
    assets = {name: f"{base}/static/{name}?v={_version(name)}" for name in ASSETS}
    html = _environment().get_template(template).render(base=base, assets=assets, **values)
    return HTMLResponse(html.encode(errors="replace"), status, headers=PAGE_HEADERS)


def message(request: Request, status: int, title: str, text: str) -> HTMLResponse:
    """Return a page with only a title and a text, such as the reason why a page cannot be shown."""
    return respond(request, "message.html", status, title=title, text=text)


def asset(name: str) -> Response:
    """Return a file that pages load. The file's address contains its version, so a browser may cache the file."""
    if name not in ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND, "no such file")
    headers = FILE_HEADERS | {"Cache-Control": "private, max-age=86400"}
    return Response(_content(name), media_type=ASSETS[name], headers=headers)


@cache
def _content(name: str) -> bytes:
    if name == "style.css":  # the report uses this file, too
        return (report.template(name) or "").encode()
    return (files("nightjar.web") / "static" / name).read_bytes()


@cache
def _version(name: str) -> str:
    return hashlib.sha256(_content(name)).hexdigest()[:12]


def _template(name: str) -> str | None:
    """Return the text of a template of this package, or else of the report. Return None if neither has the template."""
    file = files("nightjar.web") / "templates" / name
    return file.read_text("utf-8") if file.is_file() else report.template(name)


@cache
def _environment() -> Environment:
    return report.environment().overlay(loader=FunctionLoader(_template))
