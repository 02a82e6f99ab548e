"""The Airflow plugin that adds the pages of `nightjar.web` to the API server and its UI.

Every component of Airflow loads this file. So the pages are imported only when the API server receives a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

_BASE = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")


async def pages(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Serve a request for one of the pages."""
    from nightjar.web.app import app  # noqa: PLC0415 - see above

    await app(scope, receive, send)


class NightjarPlugin(AirflowPlugin):
    """The plugin's parts: the app with the pages, an entry in the navigation, and a tab of each DAG run."""

    name = "nightjar"
    fastapi_apps = [{"app": pages, "url_prefix": "/nightjar", "name": "Nightjar"}]  # noqa: RUF012 - as Airflow reads it
    external_views = [  # noqa: RUF012 - as Airflow reads it
        {
            "name": "Runs",
            "href": f"{_BASE}/nightjar/runs",
            "url_route": "nightjar-runs",
            "destination": "nav",
            "nav_top_level": True,
        },
        {
            "name": "Training",
            "href": f"{_BASE}/nightjar/runs/of?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
            "url_route": "nightjar-run",
            "destination": "dag_run",
        },
    ]
