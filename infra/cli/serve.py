"""Serve a model: ``nightjar serve --model champion``."""

from __future__ import annotations

import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from infra.serve.settings import Limits
from jobs.cli import options
from jobs.errors import InputError

DEFAULT = Limits()
LIBRARIES = ("prometheus_client", "starlette", "uvicorn")

app = typer.Typer()


@app.command("serve")
def serve(
    model: options.Model,
    lake: options.Lake = "lake",
    host: Annotated[
        str, Option(help="Address to listen on. An address that other machines can reach needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="File with an API key in each line. Default: the key in the variable NIGHTJAR_API_KEY.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "int8"],
        Option(help="Number format. float32 gives the same text as 'sample'; bfloat16 is faster for many requests."),
    ] = "float32",
    max_batch: Annotated[
        int, Option(metavar="N", min=1, max=1024, help="Generate at most N texts together. Further texts wait.")
    ] = DEFAULT.max_batch,
    max_queue: Annotated[
        int, Option(metavar="N", min=0, max=100_000, help="Refuse requests (429) while N texts wait.")
    ] = DEFAULT.max_queue,
    max_tokens: Annotated[
        int, Option(metavar="N", min=1, max=1_000_000, help="Largest max_tokens that a request may set.")
    ] = DEFAULT.max_tokens,
    timeout_seconds: Annotated[
        float,
        Option(
            metavar="S",
            min=0.1,
            max=86_400,
            help="End a text S seconds after its request. A text that still waits by then is refused (503).",
        ),
    ] = DEFAULT.timeout_seconds,
    drain_seconds: Annotated[
        float, Option(metavar="S", min=0, max=86_400, help="After SIGTERM, finish texts for at most S seconds.")
    ] = 30,
    reload_seconds: Annotated[
        float, Option(metavar="S", min=0.1, max=86_400, help="Check every S seconds whether there is another champion.")
    ] = 10,
) -> None:
    """Serve a model to OpenAI's clients: completions, streams, and metrics for Prometheus.

    The address is printed when the server is ready. SIGTERM or Ctrl-C stops it. With --model champion, the server
    switches to a new champion soon after its promotion. Requests in progress finish with the previous champion.
    """
    if missing := [name for name in LIBRARIES if not _is_installed(name)]:
        raise InputError(f"serve: {', '.join(missing)} not installed; install the packages of requirements/serve.txt")

    from infra.serve.access import KEY_VARIABLE, is_loopback, read_keys

    keys = read_keys(api_key_file)
    if not is_loopback(host) and not keys:
        raise InputError(
            f"--host {host}: other machines can reach it, so give an API key: --api-key-file or {KEY_VARIABLE}"
        )

    from infra.serve.app import Service
    from infra.serve.metrics import Metrics
    from infra.serve.models import Models
    from infra.serve.server import run
    from infra.sockets import listen
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri

    limits = Limits(max_batch, max_queue, max_tokens, timeout_seconds)
    metrics = Metrics()
    with closing(listen(host, port)) as sock:
        models = Models(model, Lake(to_uri(lake)), dtype, limits, metrics.count_step)
        models.follow(reload_seconds)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{sock.getsockname()[1]}/v1"

        def ready() -> None:
            sys.stdout.write(f"{', '.join(models.current.names)} is ready at {address}\n")
            sys.stdout.flush()

        run(Service(models, limits, keys, metrics), sock, drain_seconds, ready)


def _is_installed(name: str) -> bool:
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True
