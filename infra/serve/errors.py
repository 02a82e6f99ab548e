"""The errors of the service, in the form of OpenAI's API. OpenAI's clients turn each HTTP status into an exception."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INVALID = "invalid_request_error"
_BUSY = "server_error"


class ApiError(Exception):
    """An error that is sent as the answer to a request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def invalid(param: str | None, message: str, code: str | None = None) -> ApiError:
    """Return the error for a field that has an invalid value."""
    return ApiError(400, message, param=param, code=code)


def full(retry_seconds: int) -> ApiError:
    """Return the error for a request for which the queue has no room."""
    return ApiError(
        429,
        f"The queue of this server is full. Try again in {retry_seconds} s.",
        kind="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": str(retry_seconds)},
    )


def too_late(retry_seconds: int) -> ApiError:
    """Return the error for a request that reached its time limit while it waited in the queue."""
    return _busy("The server did not begin this request within its time limit.", "timeout", retry_seconds)


def stopping(retry_seconds: int) -> ApiError:
    """Return the error for a request that arrives while the server stops."""
    return _busy("The server is stopping.", "stopping", retry_seconds)


def _busy(why: str, code: str, retry_seconds: int) -> ApiError:
    text = f"{why} Try again in {retry_seconds} s."
    return ApiError(503, text, kind=_BUSY, code=code, headers={"Retry-After": str(retry_seconds)})


def failed() -> ApiError:
    """Return the error for a request that failed in the server. The server's log has the cause."""
    return ApiError(500, "The server failed while it generated this text. Its log has the cause.", kind=_BUSY)
