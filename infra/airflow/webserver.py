"""What is asked of a local Airflow's API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

_TIMEOUT_SECONDS = 60.0  # a busy machine may take long over the first answer
_COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
# Loopback is never behind a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url: str, body: Any = None, token: str = "", method: str | None = None) -> Any:
    """Send JSON and return the answer's JSON.

    Raises:
        OSError: if there is no answer, or one that is no success (`urllib.error.HTTPError`).
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - our own http://127.0.0.1
    with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
        return json.load(answer)


def login(url: str, password: str) -> str:
    """A token of the user ``admin``."""
    return str(call(f"{url}/auth/token", {"username": "admin", "password": password})["access_token"])


def is_healthy(url: str) -> bool:
    """Whether every component says that it is well."""
    try:
        parts = call(f"{url}/api/v2/monitor/health")
    except (OSError, ValueError):
        return False
    return all((parts.get(name) or {}).get("status") == "healthy" for name in _COMPONENTS)


def is_parsed(url: str, password: str, dag_id: str) -> bool:
    """Whether the DAG can be triggered."""
    try:
        return bool(call(f"{url}/api/v2/dags/{dag_id}", token=login(url, password)))
    except (OSError, ValueError):
        return False
