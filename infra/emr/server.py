"""The embedded EMR as a library: a server in this process for the duration of a `with` block.

    with embedded_emr(EmrSettings(buckets=("lake",))) as endpoint_url:
        emr = boto3.client("emr", endpoint_url=endpoint_url, region_name="us-east-1", ...)

A process can have one such server at a time, because moto keeps its state in global variables. Another moto server in
the same process shares its buckets. At the end of the block, all clusters and the buckets of the settings are deleted.
"""

import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import moto.emr.models
import moto.emr.urls
from botocore.exceptions import BotoCoreError, ClientError
from moto.core.base_backend import BaseBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from infra.emr.client import connect, open_store
from infra.emr.models import LocalCluster
from infra.emr.responses import LocalResponse
from infra.emr.settings import EmrSettings, ServerContext
from jobs.errors import InputError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_ONE_SERVER = threading.Lock()
_LOG_SECONDS = 10.0
"""Time, beyond the grace period, for uploading the logs of steps that were ended with the server."""


class StartError(InputError):
    """The embedded EMR cannot start with these settings."""


@contextmanager
def embedded_emr(
    settings: EmrSettings | None = None, middleware: "Callable[[WSGIApplication], WSGIApplication] | None" = None
) -> Iterator[str]:
    """Serve the EMR and S3 APIs at the URL that is yielded. At the end, end all clusters and their processes.

    Args:
        settings: Settings of the server; None uses the defaults.
        middleware: Wraps the server's WSGI application, for example to record requests.

    Raises:
        StartError: if the port is taken, the state folder cannot be made, or this process has a server already.
        InputError: if a bucket has an invalid name.
    """
    settings = settings or EmrSettings()
    if settings.host not in _LOOPBACK:
        log.warning("Anyone who can reach %s can run commands as the user of this server", settings.host)
    if not _ONE_SERVER.acquire(blocking=False):
        raise StartError("this process already has an embedded EMR; stop it first")
    with ExitStack() as stack:
        stack.callback(_ONE_SERVER.release)
        sock = stack.enter_context(closing(_listen(settings.host, settings.port)))
        url = _url(settings.host, sock.getsockname()[1])
        server = ServerContext(url, stack.enter_context(_state_dir(settings)), settings)
        stack.enter_context(_installed(server))
        stack.enter_context(_serving(sock, settings.host, middleware))
        stack.enter_context(_buckets(server))
        stack.callback(_end_clusters, settings.grace_seconds)
        yield server.endpoint_url


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python appends the address, which the message has already
        raise StartError(f"cannot listen on {host} port {port}: {reason}; choose another port") from error


def _url(host: str, port: int) -> str:
    """Return the URL for clients on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - binds nothing
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _state_dir(settings: EmrSettings) -> Iterator[Path]:
    if settings.state_dir is not None:
        try:
            settings.state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"cannot make the state folder {settings.state_dir}: {error.strerror}") from error
        yield settings.state_dir.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="nightjar-emr-"))
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _installed(server: ServerContext) -> Iterator[None]:
    """Replace moto's cluster class and API, which moto looks up by name at each use, with those of this package."""
    reset = BaseBackend.reset

    def reset_all(backend: moto.emr.models.ElasticMapReduceBackend) -> None:
        for cluster in _clusters(backend):
            cluster.abandon()
        reset(backend)

    with ExitStack() as stack:
        patch = stack.enter_context
        local = partial(LocalCluster, server)  # type: ignore[abstract]  # moto instantiates its own abstract Cluster
        patch(mock.patch.object(moto.emr.models, "Cluster", local))
        patch(mock.patch.object(moto.emr.models.ElasticMapReduceBackend, "reset", reset_all))
        patch(mock.patch.dict(moto.emr.urls.url_paths, {"{0}/$": LocalResponse.dispatch}))
        yield


@contextmanager
def _serving(
    sock: socket.socket, host: str, middleware: "Callable[[WSGIApplication], WSGIApplication] | None"
) -> Iterator[None]:
    app = _refuse_web_pages(DomainDispatcherApplication(create_backend_app))
    app = middleware(app) if middleware else app
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # at INFO it logs every request
    wsgi_server: BaseWSGIServer = make_server(
        host, sock.getsockname()[1], app, threaded=True, request_handler=MotoRequestHandler, fd=sock.fileno()
    )
    thread = threading.Thread(target=wsgi_server.serve_forever, args=(0.1,), name="emr-http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        wsgi_server.shutdown()
        wsgi_server.server_close()
        thread.join()


def _refuse_web_pages(app: Callable[..., Iterable[bytes]]) -> "WSGIApplication":
    """Refuse requests from web pages, which could otherwise run commands here. AWS SDKs send no Origin header."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if "HTTP_ORIGIN" not in environ:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [b"The embedded EMR refuses requests from web pages.\n"]

    return guarded


@contextmanager
def _buckets(server: ServerContext) -> Iterator[None]:
    client, store = connect("s3", server.endpoint_url), open_store(server.endpoint_url)
    for name in server.settings.buckets:
        try:
            client.create_bucket(Bucket=name)
        except (BotoCoreError, ClientError) as error:
            raise InputError(f"cannot create bucket {name!r}: {error}") from None
    try:
        yield
    finally:
        for name in server.settings.buckets:
            with suppress(OSError, ClientError):  # it may be gone, or have older versions of objects
                store.delete_folder(f"s3://{name}")
                client.delete_bucket(Bucket=name)


def _end_clusters(grace_seconds: float) -> None:
    backends = [backend for _, _, backend in moto.emr.models.emr_backends.iter_backends()]
    clusters = [cluster for backend in backends for cluster in _clusters(backend)]
    for cluster in clusters:
        cluster.terminate()
    deadline = time.monotonic() + grace_seconds + _LOG_SECONDS
    for cluster in clusters:
        cluster.join(max(0.0, deadline - time.monotonic()))
    for backend in backends:
        backend.reset()


def _clusters(backend: BaseBackend) -> list[LocalCluster]:
    assert isinstance(backend, moto.emr.models.ElasticMapReduceBackend)
    return [cluster for cluster in backend.clusters.values() if isinstance(cluster, LocalCluster)]
