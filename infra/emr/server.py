"""The embedded EMR as a library: a server in this process for the duration of a `with` block.

    with embedded_emr(EmrSettings(buckets=("lake",))) as endpoint_url:
        emr = boto3.client("emr", endpoint_url=endpoint_url, region_name="us-east-1", ...)

A process can have one such server at a time, because moto keeps its state in global variables. If the same process
also runs a plain moto server, both have the same buckets. At the end of the block, all clusters are terminated, and
the buckets of the settings are deleted.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from infra.emr import state
from infra.emr.api import EmrApi
from infra.emr.app import App
from infra.emr.client import CLUSTER_AGENT, connect, open_store
from infra.emr.clock import Clock
from infra.emr.control_api import ControlApi
from infra.emr.faults import Faults
from infra.emr.gateway import s3_at
from infra.emr.logs import Uploads
from infra.emr.registry import Clusters
from infra.emr.serving import StartError, serving
from infra.emr.settings import EmrSettings, ServerContext
from infra.emr.spark_home import require_spark
from infra.emr.yarn import cluster as yarn
from infra.sockets import listen
from jobs.errors import InputError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_ONE_SERVER = threading.Lock()
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@contextmanager
def embedded_emr(
    settings: EmrSettings | None = None, middleware: Callable[[WSGIApplication], WSGIApplication] | None = None
) -> Iterator[str]:
    """Serve the EMR and S3 APIs, and yield their URL. At the end of the block, terminate all clusters.

    Args:
        settings: Settings of the server; None uses the defaults.
        middleware: Wraps the server's WSGI application, for example to record requests.

    Raises:
        StartError: if the port is taken, the state folder cannot be made, or this process already has a server.
        InputError: if a bucket has an invalid name, or if the settings require YARN and this machine cannot run it.
    """
    settings = settings or EmrSettings()
    for name in settings.buckets:
        if not _BUCKET.fullmatch(name):
            raise InputError(f"bucket {name!r}: its name needs 3 to 63 lower-case letters, digits, dots and hyphens")
    if settings.host not in _LOOPBACK:
        log.warning("Anyone who can reach this server at %s can run commands as the server's user", settings.host)
    if settings.executors == "yarn":
        yarn.check(require_spark())
    if not _ONE_SERVER.acquire(blocking=False):
        raise StartError("this process already has an embedded EMR; stop it first")
    with ExitStack() as stack:
        stack.callback(_ONE_SERVER.release)
        sock = stack.enter_context(closing(listen(settings.host, settings.port)))
        url = _url(*sock.getsockname()[:2])
        folder = stack.enter_context(_state_dir(settings))
        stack.enter_context(state.locked(folder))
        clock, store, faults = Clock(settings.clock_speed), open_store(url), Faults()
        uploads = Uploads(store, clock, settings.log_delay_seconds)
        server = ServerContext(url, folder, settings, store, clock, faults, uploads, partial(s3_at, faults=faults))
        clusters = Clusters(server)
        clusters.load()
        control = ControlApi(faults, clock, clusters.next_loss)
        app = App(DomainDispatcherApplication(create_backend_app), EmrApi(clusters), control, faults)
        stack.enter_context(serving(sock, settings.host, middleware(app) if middleware else app))
        stack.enter_context(_buckets(server))
        stack.callback(uploads.close)
        stack.callback(clusters.stop)
        stack.callback(faults.remove)
        yield server.endpoint_url


def _url(host: str, port: int) -> str:
    """Return the URL at which clients on this machine reach a server that listens at the IP address `host`."""
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
def _buckets(server: ServerContext) -> Iterator[None]:
    client = connect("s3", server.endpoint_url, CLUSTER_AGENT)
    for name in server.settings.buckets:
        try:
            client.create_bucket(Bucket=name)
        except (BotoCoreError, ClientError) as error:
            raise InputError(f"cannot create bucket {name!r}: {error}") from None
    try:
        yield
    finally:
        for name in server.settings.buckets:
            with suppress(OSError, ClientError):  # the bucket may be gone, or have older versions of objects
                server.store.delete_folder(f"s3://{name}")
                client.delete_bucket(Bucket=name)
