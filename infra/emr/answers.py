"""HTTP responses of the server: JSON, and errors in the formats of EMR and S3."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from infra.emr.calls import Call

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

ACCOUNT = "123456789012"
USER = f"arn:aws:iam::{ACCOUNT}:user/nightjar"
_REASONS = {
    200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """An error response of the API."""

    status: int
    code: str
    message: str


class ApiError(Exception):
    """The server refuses a call. By default the response is a ValidationException with status 400."""

    def __init__(self, message: str, code: str = "ValidationException", status: int = 400) -> None:
        super().__init__(message)
        self.problem = Problem(status, code, message)


class InvalidRequestError(ApiError):
    """The server refuses a call with an InvalidRequestException, for example because the cluster does not exist."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "InvalidRequestException")


def present(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return `members` without the entries whose value is None."""
    return {name: value for name, value in members.items() if value is not None}


def send_json(
    start_response: StartResponse, value: Any, status: int = 200, kind: str = "application/json"
) -> Iterable[bytes]:
    """Send a JSON response. If the value is None, the body is empty."""
    body = b"" if value is None else json.dumps(value).encode()
    return _send(start_response, status, body, {"Content-Type": kind, "x-amzn-RequestId": str(uuid.uuid4())})


def send_amz_json(start_response: StartResponse, value: Any) -> Iterable[bytes]:
    """Send the response to a successful call of EMR."""
    return send_json(start_response, value, kind="application/x-amz-json-1.1")


def send_problem(start_response: StartResponse, call: Call, problem: Problem, *, has_body: bool) -> Iterable[bytes]:
    """Send an error in the format of the call's service. `has_body` is false for HEAD requests."""
    if call.service == "s3":
        return _send_xml(start_response, call, problem, has_body)
    body = {"__type": problem.code, "Message": problem.message}
    if call.service == "emr":
        return send_json(start_response, body, problem.status, "application/x-amz-json-1.1")
    return send_json(start_response, {**body, "message": problem.message}, problem.status)


def _send_xml(start_response: StartResponse, call: Call, problem: Problem, has_body: bool) -> Iterable[bytes]:
    request = uuid.uuid4().hex[:16].upper()
    resource = f"/{call.values.get('Bucket', '')}/{call.values.get('Key', '')}"
    parts = {"Code": problem.code, "Message": problem.message, "Resource": resource, "RequestId": request}
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in parts.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode() if has_body else b""
    return _send(start_response, problem.status, body, {"Content-Type": "application/xml", "x-amz-request-id": request})


def _send(start_response: StartResponse, status: int, body: bytes, headers: Mapping[str, str]) -> Iterable[bytes]:
    line = f"{status} {_REASONS.get(status, 'Error')}"
    start_response(line, [*headers.items(), ("Content-Length", str(len(body)))])
    return [body]


def fault_problem(kind: str, call: Call) -> Problem:
    """Return the error response for an injected fault of this kind, with the code and message that AWS uses.

    The texts for EMR come from reports about real clusters and from EMR's list of common errors. The texts for S3 come
    from S3's list of error codes.
    """
    if call.service == "s3":
        bucket_only = "Key" not in call.values
        return {
            "throttled": Problem(503, "SlowDown", "Please reduce your request rate."),
            "denied": Problem(403, "AccessDenied", "Access Denied"),
            "unavailable": Problem(503, "ServiceUnavailable", "Service is unable to handle request."),
            "not-found": Problem(404, "NoSuchBucket", "The specified bucket does not exist")
            if bucket_only
            else Problem(404, "NoSuchKey", "The specified key does not exist."),
        }[kind]
    return {
        "throttled": Problem(400, "ThrottlingException", "Rate exceeded"),
        "denied": Problem(400, "AccessDeniedException", _denied(call)),
        "unavailable": Problem(503, "ServiceUnavailable", "The request has failed due to a temporary failure."),
        "not-found": Problem(400, "InvalidRequestException", f"Cluster id '{_cluster(call)}' is not valid."),
    }[kind]


def _denied(call: Call) -> str:
    service = "elasticmapreduce" if call.service == "emr" else call.service
    action = f"{service}:{call.operation}"
    resource = f"arn:aws:elasticmapreduce:{call.region}:{ACCOUNT}:cluster/{_cluster(call) or '*'}"
    if call.operation == "ListClusters" or call.service != "emr":
        resource = "*"
    reason = f"because no identity-based policy allows the {action} action"
    return f"User: {USER} is not authorized to perform: {action} on resource: {resource} {reason}"


def _cluster(call: Call) -> str:
    named = [call.values.get(name) for name in ("ClusterId", "JobFlowId", "ResourceId")]
    listed = call.values.get("JobFlowIds")
    named += listed if isinstance(listed, list) else []
    return next((str(name) for name in named if name), "")
