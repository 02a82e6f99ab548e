"""The embedded EMR as a library: one server in this process, on loopback, as long as a `with` lasts.

    with embedded_emr(Settings(buckets=("lake",))) as endpoint_url:
        emr = boto3.client("emr", endpoint_url=endpoint_url, region_name="us-east-1", ...)

moto keeps its state in the modules of its process. So a process has one such server at a time, and another moto server
in the same process shows the same buckets. Clusters and the buckets named in the settings are gone when the block ends.
"""

import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import moto.emr.models
import moto.emr.urls
from moto.core.base_backend import BaseBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from infra.emr.models import LocalCluster
from infra.emr.responses import LocalResponse
from infra.emr.settings import Settings, Site
from infra.emr.store import Store
from jobs.errors import InputError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_ONE_SERVER = threading.Lock()
_LOG_SECONDS = 10.0
"""What the clusters have, beyond their grace, to ship the logs of steps that were ended with the server."""


class StartError(InputError):
    """The embedded EMR cannot start with these settings."""


@contextmanager
def embedded_emr(settings: Settings | None = None) -> Iterator[str]:
    """Serves the EMR and S3 API until the block is left; then ends all clusters with all of their processes.

    Yields:
        The URL to be used as `AWS_ENDPOINT_URL`.

    Raises:
        StartError: The port is taken, the state folder cannot be made, or this process already has a server.
        StoreError: A bucket has an impossible name.
    """
    settings = settings or Settings()
    if settings.host not in _LOOPBACK:
        log.warning("Whoever reaches %s can run commands as the user who started this", settings.host)
    if not _ONE_SERVER.acquire(blocking=False):
        raise StartError("this process already has an embedded EMR; leave its block first")
    with ExitStack() as stack:
        stack.callback(_ONE_SERVER.release)
        sock = stack.enter_context(closing(_listen(settings.host, settings.port)))
        site = Site(_url(settings.host, sock.getsockname()[1]), stack.enter_context(_state_dir(settings)), settings)
        stack.enter_context(_installed(site))
        stack.enter_context(_serving(sock, settings.host))
        stack.enter_context(_buckets(site))
        stack.callback(_end_clusters, settings.grace_seconds)
        yield site.endpoint_url


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # Python adds the address, which we have said
        raise StartError(f"cannot listen on {host} port {port}: {why}; choose another") from error


def _url(host: str, port: int) -> str:
    """The URL for clients on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104, this binds nothing
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _state_dir(settings: Settings) -> Iterator[Path]:
    if settings.state_dir is not None:
        try:
            settings.state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"cannot work in {settings.state_dir}: {error.strerror}") from error
        yield settings.state_dir.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="nightjar-emr-"))
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _installed(site: Site) -> Iterator[None]:
    """Puts the local cluster and API in the place of moto's, which looks both up by name when it needs them."""
    reset = BaseBackend.reset

    def reset_all(backend: moto.emr.models.ElasticMapReduceBackend) -> None:
        for cluster in _clusters(backend):
            cluster.abandon()
        reset(backend)

    with ExitStack() as stack:
        patch = stack.enter_context
        local = partial(LocalCluster, site)  # type: ignore[abstract]  # moto's Cluster is as abstract, and instantiated
        patch(mock.patch.object(moto.emr.models, "Cluster", local))
        patch(mock.patch.object(moto.emr.models.ElasticMapReduceBackend, "reset", reset_all))
        patch(mock.patch.dict(moto.emr.urls.url_paths, {"{0}/$": LocalResponse.dispatch}))
        yield


@contextmanager
def _serving(sock: socket.socket, host: str) -> Iterator[None]:
    app = _refuse_web_pages(DomainDispatcherApplication(create_backend_app))
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request
    port = sock.getsockname()[1]
    server: BaseWSGIServer = make_server(
        host, port, app, threaded=True, request_handler=MotoRequestHandler, fd=sock.fileno()
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="emr-http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _refuse_web_pages(app: Callable[..., Iterable[bytes]]) -> "WSGIApplication":
    """Refuses what a browser sends for a web page: else any page could run commands here. SDKs send no Origin."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if "HTTP_ORIGIN" not in environ:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [b"The embedded EMR does not answer web pages.\n"]

    return guarded


@contextmanager
def _buckets(site: Site) -> Iterator[None]:
    store = Store(site.endpoint_url)
    for name in site.settings.buckets:
        store.create_bucket(name)
    try:
        yield
    finally:
        for name in site.settings.buckets:
            store.delete_bucket(name)


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
