"""Identify a call of the AWS API from its HTTP request: service, operation, members and caller."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from moto.core.request import Request
from moto.core.routing import get_service_router
from werkzeug.exceptions import HTTPException

from infra.emr.client import CLUSTER_AGENT, STEP_AGENT

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

EMR_TARGET = "ElasticMapReduce."

_CREDENTIAL = re.compile(r"Credential=([^/,\s]*)/\d+/([^/]*)/([^/]*)/aws4_request")
_KEY_SEPARATOR = "/"


@dataclass(frozen=True)
class Call:
    """A call of the AWS API."""

    service: str
    """Such as `emr` or `s3`."""
    operation: str
    """Such as `RunJobFlow`; empty if it is not known."""
    region: str = "us-east-1"
    caller: str = "client"
    """`client`, `step` or `cluster`: see `faults.Fault.callers`."""
    values: dict[str, Any] = field(default_factory=dict)
    """The members of the request. For S3: Bucket, Key, Prefix, CopySource and the parameters of the query string."""


def region_of(environ: WSGIEnvironment) -> str:
    """Return the region for which a request was signed. Return us-east-1 if it was not signed."""
    found = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    return found[2] if found else "us-east-1"


def identify(environ: WSGIEnvironment) -> Call:
    """Return the call that a request makes. The body of the request can still be read afterwards."""
    found = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    service = found[3] if found else "s3"  # only S3 is often used with signed URLs or without a signature
    service = "emr" if service == "elasticmapreduce" else service
    common = {"region": region_of(environ), "caller": _caller(environ.get("HTTP_USER_AGENT", ""))}
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return Call(service, target.rpartition(".")[2], **common, values=read_json(environ))
    if service == "s3":
        operation, values = _identify_s3(environ)
        return Call("s3", operation, **common, values=values)
    form = dict(parse_qsl(_peek(environ).decode(errors="replace"))) if _is_form(environ) else {}
    form |= dict(parse_qsl(environ.get("QUERY_STRING", "")))
    return Call(service, form.get("Action", ""), **common, values=form)


def read_json(environ: WSGIEnvironment) -> dict[str, Any]:
    """Return the JSON object in the body of a request. Return an empty object if the body is not a JSON object."""
    try:
        value = json.loads(_peek(environ) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def drain(environ: WSGIEnvironment) -> None:
    """Read and discard the body of a request, so that the connection can be used again."""
    stream, size = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
    if environ.get("wsgi.input_terminated") and not size:
        while stream.read(1 << 20):
            pass
    while size > 0 and (data := stream.read(min(size, 1 << 20))):
        size -= len(data)


def _peek(environ: WSGIEnvironment) -> bytes:
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _is_form(environ: WSGIEnvironment) -> bool:
    return str(environ.get("CONTENT_TYPE", "")).startswith("application/x-www-form-urlencoded")


def _caller(agent: str) -> str:
    if CLUSTER_AGENT in agent:
        return "cluster"
    return "step" if f"exec-env/{STEP_AGENT}" in agent else "client"


def _identify_s3(environ: WSGIEnvironment) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace").lstrip(_KEY_SEPARATOR)
    bucket, _, key = path.partition(_KEY_SEPARATOR)
    values |= {"Bucket": bucket} if bucket else {}
    values |= {"Key": key} if key else {}
    values |= {"Prefix": values["prefix"]} if "prefix" in values else {}
    if source := environ.get("HTTP_X_AMZ_COPY_SOURCE"):
        values["CopySource"] = unquote(source).lstrip(_KEY_SEPARATOR)
    try:
        operation, _ = get_service_router("s3").match(Request(dict(environ)))
    except HTTPException:
        return "", values
    return operation.name, values
