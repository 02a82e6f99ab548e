"""Record the requests to the embedded EMR and S3, and translate them into IAM actions on resources."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

from tests.infra.aws.policies import Call

OWN_TAG = "aws:ResourceTag/nightjar:project"


@dataclass(frozen=True)
class Request:
    """A request with the access key that signed it."""

    key: str
    method: str
    path: str
    query: str
    target: str
    copy_source: str
    body: bytes


class Recorder:
    """WSGI middleware that records every request."""

    def __init__(self, app: Callable[..., Iterable[bytes]], received: list[Request]) -> None:
        self._app = app
        self._received = received

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        body = b""
        if target or environ.get("QUERY_STRING") == "delete":
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
        self._received.append(
            Request(
                key=environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0],
                method=environ["REQUEST_METHOD"],
                path=environ["PATH_INFO"].encode("latin-1").decode(),
                query=environ.get("QUERY_STRING", ""),
                target=target,
                copy_source=unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", "")),
                body=body,
            )
        )
        return self._app(environ, start_response)


def calls(requests: Iterable[Request], project: str) -> set[Call]:
    """Return the calls that AWS would authorize for the requests. Clusters are assumed to belong to `project`."""
    return {call for request in requests for call in (_emr(request, project) if request.target else _s3(request))}


def _emr(request: Request, project: str) -> Iterator[Call]:
    action, body = request.target.rpartition(".")[2], json.loads(request.body or b"{}")
    cluster = "arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/"
    if action == "RunJobFlow":
        tags = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in body["Tags"]}
        yield Call("elasticmapreduce:RunJobFlow", "*", tags)
        # Whether the new cluster has its tags when this is judged is not documented.
        yield Call("elasticmapreduce:PutAutoTerminationPolicy", f"{cluster}j-NEW")
        yield Call("iam:PassRole", body["ServiceRole"], {"iam:PassedToService": "elasticmapreduce.amazonaws.com"})
        node = f"arn:aws:iam::123456789012:role/{body['JobFlowRole']}"
        yield Call("iam:PassRole", node, {"iam:PassedToService": "ec2.amazonaws.com"})
    elif action == "ListClusters":
        yield Call(f"elasticmapreduce:{action}", "*")
    elif action == "AddTags":
        tags = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in body["Tags"]}
        yield Call(f"elasticmapreduce:{action}", cluster + body["ResourceId"], {OWN_TAG: project, **tags})
    else:
        names = [body.get("ClusterId") or body.get("JobFlowId"), *body.get("JobFlowIds", [])]
        for name in filter(None, names):
            yield Call(f"elasticmapreduce:{action}", cluster + name, {OWN_TAG: project})


def _s3(request: Request) -> Iterator[Call]:
    bucket, _, key = request.path.lstrip("/").partition("/")
    query = parse_qs(request.query, keep_blank_values=True)
    arn = f"arn:aws:s3:::{bucket}"
    if not key and request.query == "delete":
        for each in ElementTree.fromstring(request.body).iterfind("{*}Object/{*}Key"):
            yield Call("s3:DeleteObject", f"{arn}/{each.text}")
        return
    if not key:
        assert request.method in ("GET", "HEAD"), request
        yield Call("s3:ListBucket", arn, {"s3:prefix": query["prefix"][0]} if "prefix" in query else {})
        return
    if request.copy_source:
        yield Call("s3:GetObject", f"arn:aws:s3:::{request.copy_source.lstrip('/')}")
    action = {
        "GET": "GetObject",
        "HEAD": "GetObject",
        "PUT": "PutObject",
        "POST": "PutObject",
        "DELETE": "DeleteObject",
    }[request.method]
    if request.method == "DELETE" and "uploadId" in query:
        action = "AbortMultipartUpload"
    yield Call(f"s3:{action}", f"{arn}/{key}")
