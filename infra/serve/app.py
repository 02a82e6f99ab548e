"""The routes of the service, as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.serve import errors
from infra.serve.access import Keys, is_local_name
from infra.serve.answers import Answer, event
from infra.serve.engine import ClosedError, Job, QueueFullError, TooLateError, Update
from infra.serve.errors import ApiError
from infra.serve.metrics import Metrics
from infra.serve.models import Models, Served
from infra.serve.protocol import CompletionRequest
from infra.serve.settings import Limits
from jobs.errors import shorten

MOST_BODY_BYTES = 1 << 20
BODY_SECONDS = 30.0
RETRY_SECONDS = 2

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """The handlers of the routes."""

    def __init__(self, models: Models, limits: Limits, keys: Keys, metrics: Metrics) -> None:
        self._models, self._limits, self._keys, self._metrics = models, limits, keys, metrics
        self._is_stopping = False
        metrics.watch(lambda: models.current.engine.num_running, lambda: models.current.engine.num_waiting)
        models.on_reload = lambda success: metrics.reloads.labels("success" if success else "failure").inc()

    def app(self) -> ASGIApp:
        """Return the application."""
        routes = [
            Route("/v1/completions", self._guarded(self._completions), methods=["POST"]),
            Route("/v1/models", self._guarded(self._list_models)),
            Route("/v1/models/{name:path}", self._guarded(self._show_model)),
            Route("/metrics", self._guarded(self._show_metrics)),
            Route("/health", self._health),
        ]
        handlers: dict[Any, Any] = {
            ApiError: _answer_error,
            HTTPException: _answer_other_error,
            ClientDisconnect: _answer_disconnected,
            Exception: _answer_defect,
        }
        return _Counted(Starlette(routes=routes, exception_handlers=handlers), self._metrics)

    def stop(self, seconds: float) -> None:
        """Refuse further requests. Requests in progress may go on for at most `seconds` seconds."""
        self._is_stopping = True
        self._models.close(seconds)

    def end(self, seconds: float) -> None:
        """End the requests still in progress. Wait for each engine's thread to end, but at most `seconds` seconds."""
        self._models.close(0)
        self._models.join(seconds)

    def _guarded(self, handler: Handler) -> Handler:
        """Return a handler that checks the API key before it calls `handler`. Without keys, it checks the Host header.

        The check of the Host header prevents DNS rebinding: a web page in the user's browser could let its own host
        name resolve to 127.0.0.1, and so reach a service on loopback.
        """

        async def guarded(request: Request) -> Response:
            scheme, _, shown = request.headers.get("authorization", "").partition(" ")
            if self._keys and not (scheme.lower() == "bearer" and self._keys.admit(shown.strip())):
                raise ApiError(
                    401,
                    "Incorrect API key provided." if shown else "You didn't provide an API key.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            if not self._keys and not is_local_name(request.headers.get("host", "")):
                raise ApiError(
                    403, "Without an API key, this server answers only requests to localhost.", code="wrong_host"
                )
            return await handler(request)

        return guarded

    async def _completions(self, request: Request) -> Response:
        """Answer ``POST /v1/completions``."""
        arrived = time.monotonic()
        asked = CompletionRequest.parse(await _body(request))
        served, job, updates = await self._submit(asked, arrived)
        answer = Answer(asked, job.members, served.tokenizer, served.fingerprint)
        self._metrics.prompt_tokens.inc(answer.num_prompt_tokens)
        with ExitStack() as ending:
            ending.callback(self._end, served, job, answer, arrived)
            first = await _cancel_on_disconnect(request, updates.next())
            self._metrics.first_token.observe(time.monotonic() - arrived)
            if asked.stream:
                return _EventStream(_events(answer, first, updates), ending.pop_all())
            await _cancel_on_disconnect(request, _collect(answer, first, updates))
            return JSONResponse(answer.whole())

    async def _submit(self, asked: CompletionRequest, arrived: float) -> tuple[Served, Job, _Updates]:
        """Submit a request to the current model's engine. If that engine has been replaced, try its successor."""
        while not self._is_stopping:
            served = self._models.current
            _check_name(asked.model, served)
            members = await run_in_threadpool(asked.members, served.model, served.tokenizer, self._limits)
            updates = _Updates()
            job = Job(members, updates.put, updates.fail, arrived + self._limits.timeout_seconds)
            try:
                served.engine.submit(job)
            except QueueFullError:
                raise errors.full(RETRY_SECONDS) from None
            except ClosedError:
                await asyncio.sleep(0)  # another model has replaced this one
                continue
            return served, job, updates
        raise errors.stopping(RETRY_SECONDS)

    def _end(self, served: Served, job: Job, answer: Answer, arrived: float) -> None:
        """Record the end of a request. If the answer is not complete, cancel the job."""
        if not answer.is_complete:
            served.engine.cancel(job)
            self._metrics.unfinished.inc()
        self._metrics.seconds.observe(time.monotonic() - arrived)

    async def _list_models(self, request: Request) -> Response:
        served = self._models.current
        return JSONResponse({"object": "list", "data": [_model(name, served) for name in served.names]})

    async def _show_model(self, request: Request) -> Response:
        name, served = request.path_params["name"], self._models.current
        _check_name(name, served)
        return JSONResponse(_model(name, served))

    async def _show_metrics(self, request: Request) -> Response:
        served = self._models.current
        return Response(self._metrics.text(served.names[-1], served.fingerprint), media_type=CONTENT_TYPE_LATEST)

    async def _health(self, request: Request) -> Response:
        is_well = self._models.current.engine.is_alive and not self._is_stopping
        return JSONResponse({"status": "ok" if is_well else "stopping"}, 200 if is_well else 503)


class _Updates:
    """The latest update of each continuation of a job. If the reader is slow, it misses earlier updates.

    The engine's thread calls `put` and `fail`. The server's event loop awaits `next`.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._latest: dict[int, Update] = {}
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def put(self, update: Update) -> None:
        """Store an update. It replaces an unread update of the same continuation."""
        self._call(lambda: self._latest.update({update.index: update}))

    def fail(self, error: Exception) -> None:
        """Store the error that ends the job."""
        self._call(lambda: setattr(self, "_error", error))

    async def next(self) -> list[Update]:
        """Return the updates since the last call. If there are none, wait for one.

        Raises:
            ApiError: if the job has failed.
        """
        await self._changed.wait()
        self._changed.clear()
        if self._error is not None:
            raise errors.too_late(RETRY_SECONDS) if isinstance(self._error, TooLateError) else errors.failed()
        latest, self._latest = self._latest, {}
        return list(latest.values())

    def _call(self, change: Callable[[], object]) -> None:
        def run() -> None:
            change()
            self._changed.set()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(run)


async def _collect(answer: Answer, updates: list[Update], later: _Updates) -> None:
    """Add `updates` to the answer, and then the updates from `later` until the answer is complete."""
    while True:
        for update in updates:
            answer.add(update)
        if answer.is_complete:
            return
        updates = await later.next()


async def _events(answer: Answer, updates: list[Update], later: _Updates) -> AsyncIterator[bytes]:
    """Yield the events of the answer: first those of `updates`, and then those of the updates from `later`.

    An error also becomes an event, since the HTTP status has been sent already.
    """
    while True:
        for each in answer.events(updates):
            yield each
        if answer.is_complete:
            return
        try:
            updates = await later.next()
        except ApiError as error:
            yield event(error.body())
            return


class _EventStream(StreamingResponse):
    """A response that streams events. At its end, or if the client disconnects, `ending` is closed."""

    def __init__(self, events: AsyncIterator[bytes], ending: ExitStack) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events to the client."""
        with self._ending:
            await super().__call__(scope, receive, send)


class _Counted:
    """An ASGI application that calls the application `app`, and counts its answers by route and status."""

    def __init__(self, app: Starlette, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and count the answer."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                path = route.path if isinstance(route, Route) else "other"
                self._metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


async def _body(request: Request) -> bytes:
    """Return the body of a request. Refuse it if it is too large, or if its content type is not JSON.

    With other content types, a web page in the user's browser could send requests to this service.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "The Content-Type must be application/json.")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > MOST_BODY_BYTES:
                    raise ApiError(
                        413, f"The body has more than {MOST_BODY_BYTES} bytes.", headers={"Connection": "close"}
                    )
    except TimeoutError:
        raise ApiError(408, "The body did not arrive in time.", headers={"Connection": "close"}) from None
    return b"".join(chunks)


async def _cancel_on_disconnect(request: Request, waiting: Coroutine[Any, Any, Result]) -> Result:
    """Await the coroutine `waiting` and return its result. If the client disconnects first, raise ClientDisconnect."""
    wanted = asyncio.ensure_future(waiting)
    left = asyncio.ensure_future(_wait_until_left(request))
    try:
        await asyncio.wait({wanted, left}, return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise ClientDisconnect
        return wanted.result()
    finally:
        wanted.cancel()
        left.cancel()


async def _wait_until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_name(name: str, served: Served) -> None:
    if name not in served.names:
        known = ", ".join(served.names)
        raise ApiError(
            404, f"The model `{name}` does not exist; this server has {known}.", param="model", code="model_not_found"
        )


def _model(name: str, served: Served) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": served.loaded_at, "owned_by": "nightjar"}


async def _answer_error(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)


async def _answer_other_error(request: Request, error: HTTPException) -> Response:
    asked = shorten(f"{request.method} {request.url.path}")
    message = f"{error.detail}: {asked}; this server has POST /v1/completions and GET /v1/models"
    return JSONResponse(ApiError(error.status_code, message).body(), error.status_code, error.headers)


async def _answer_disconnected(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def _answer_defect(request: Request, error: Exception) -> Response:
    return JSONResponse(errors.failed().body(), 500)
