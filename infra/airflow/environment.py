"""The environment of a local Airflow: its own home, loopback, and nothing of this machine's configuration."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
_PASSWORDS, _SECRETS = "passwords.json", "secrets.json"


def environment(home: Path, lake_uri: str, emr_endpoint: str, port: int = 0) -> dict[str, str]:
    """The environment variables of every process of a local Airflow; makes its password and secrets if need be.

    Args:
        home: Where it keeps its database, logs and secrets (``AIRFLOW_HOME``).
        lake_uri: The lake, as a URI.
        emr_endpoint: URL of the embedded EMR and S3.
        port: Of its UI and API; unused where the DAG runs without them.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "AWS_"))}
    no_proxy = ",".join(filter(None, [inherited.get("no_proxy") or inherited.get("NO_PROXY"), "127.0.0.1,localhost"]))
    connection = {
        "conn_type": "aws",
        "login": "embedded",
        "password": "embedded",
        "extra": {"region_name": "us-east-1", "endpoint_url": emr_endpoint},
    }
    return {
        "NIGHTJAR_POLL_SECONDS": "1",
        **inherited,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PYTHONUNBUFFERED": "1",
        "NIGHTJAR_LAKE": lake_uri,
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AIRFLOW_HOME": str(home),
        **_airflow_settings(home, port),
    }


def admin_password(home: Path) -> str:
    """The password of the user ``admin``: made once, kept in the home."""
    return kept(home / _PASSWORDS, {"admin": secrets.token_urlsafe(9)})["admin"]


def _airflow_settings(home: Path, port: int) -> dict[str, str]:
    admin_password(home)
    keys = kept(home / _SECRETS, {"api": secrets.token_hex(32), "jwt": secrets.token_hex(64)})
    url = f"http://127.0.0.1:{port}"
    settings = {
        "CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",  # each is a process that waits; the default is 32 of them
        "CORE__FERNET_KEY": "",
        # Else a schedule would run its latest missed tick at once.
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": str(bool(os.environ.get("NIGHTJAR_SCHEDULE", "").strip())),
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / _PASSWORDS),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "API__SECRET_KEY": keys["api"],
        "API_AUTH__JWT_SECRET": keys["jwt"],
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # How long a worker lingers after its task. Longer than a short step, the scheduler takes the end of the task's
        # first leg, before it was deferred, for the end of its second, and fails it.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # On a busy machine. A task whose start was answered after the default of 5 s asks again, and is refused as one
        # that runs already.
        "WORKERS__EXECUTION_API_TIMEOUT": "60",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {f"AIRFLOW__{key}": value for key, value in settings.items()}


def kept(path: Path, new: dict[str, str]) -> dict[str, str]:
    """What is in the file at `path`; if there is none, it is made of `new`, for this user's eyes only."""
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(new), "utf-8")
        temporary.replace(path)
    kept: dict[str, str] = json.loads(path.read_text("utf-8"))
    return kept
