"""The plugin of Airflow that adds the pages of `nightjar.pages` to the API server.

Every component of Airflow loads this file, so the pages are imported only by the one that serves them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin


async def pages(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Serve a request for one of the pages."""
    from nightjar.pages import app  # noqa: PLC0415 - see above

    await app(scope, receive, send)


class NightjarPlugin(AirflowPlugin):
    """The pages of runs."""

    name = "nightjar"
    fastapi_apps = [{"app": pages, "url_prefix": "/nightjar", "name": "Nightjar"}]  # noqa: RUF012 - as Airflow reads it
