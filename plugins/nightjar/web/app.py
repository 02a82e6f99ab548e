"""The FastAPI app that Airflow's API server serves at ``/nightjar``: its routes, and its answers to errors."""

from __future__ import annotations

import logging
from http import HTTPStatus

from airflow.api_fastapi.app import get_auth_manager
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from jobs.errors import NightjarError
from jobs.results.summary import MOST_CHARACTERS
from jobs.results.text import one_line
from nightjar.web import files, runs, sampling
from nightjar.web.access import READ_RUNS
from nightjar.web.responses import FILE_HEADERS, asset, message

log = logging.getLogger(__name__)

app = FastAPI(openapi_url=None)
app.include_router(files.router)
app.include_router(runs.router)
app.include_router(sampling.router)
app.add_api_route("/static/{name}", asset, dependencies=[READ_RUNS])


@app.exception_handler(HTTPException)
def refuse(request: Request, error: HTTPException) -> Response:
    """Redirect a browser whose user is not logged in to the login page. Answer other requests with the error."""
    if error.status_code == HTTPStatus.UNAUTHORIZED and _wants_page(request):
        return RedirectResponse(get_auth_manager().get_url_login(next_url=str(request.url)))
    answer = _answer(request, error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


@app.exception_handler(RequestValidationError)
def refuse_values(request: Request, error: RequestValidationError) -> Response:
    """Answer a request whose parameters have wrong values. The answer names the first wrong parameter."""
    first = error.errors()[0]
    text = f"{first['loc'][-1]}: {first['msg']}"
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "This address has a wrong value", text)


@app.exception_handler(NightjarError)
@app.exception_handler(OSError)
def explain(request: Request, error: Exception) -> Response:
    """Answer a request that failed because the lake cannot be read. The answer gives the reason."""
    text = one_line(error, MOST_CHARACTERS)
    log.warning("%s: %s", request.url.path, text)
    return _answer(request, HTTPStatus.BAD_GATEWAY, "The lake cannot be read", text)


def _answer(request: Request, status: int, title: str, text: str) -> Response:
    text = one_line(text, MOST_CHARACTERS)
    if _wants_page(request):
        return message(request, status, title, text)
    return JSONResponse({"detail": text}, status, headers=FILE_HEADERS)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
