"""Requests to the API of a local Airflow."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

_TIMEOUT_SECONDS = 60.0  # the first response may take long on a busy machine
_COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
# Loopback is never reached through a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url: str, body: Any = None, token: str = "", method: str | None = None) -> Any:
    """Send a JSON request and return the JSON of the response.

    Raises:
        OSError: if there is no response, or its status is an error (`urllib.error.HTTPError`).
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - our own http://127.0.0.1
    with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as response:
        return json.load(response)


def login(url: str, password: str) -> str:
    """Log in as ``admin`` and return the token."""
    return str(call(f"{url}/auth/token", {"username": "admin", "password": password})["access_token"])


def is_healthy(url: str) -> bool:
    """Return whether every component reports that it is healthy."""
    try:
        health = call(f"{url}/api/v2/monitor/health")
    except (OSError, ValueError):
        return False
    return all((health.get(name) or {}).get("status") == "healthy" for name in _COMPONENTS)


def is_dag_ready(url: str, password: str, dag_id: str) -> bool:
    """Return whether the DAG has been parsed, so that it can be triggered."""
    try:
        return bool(call(f"{url}/api/v2/dags/{dag_id}", token=login(url, password)))
    except (OSError, ValueError):
        return False
