"""Environment variables of a local Airflow. They isolate it from any other Airflow and AWS account of the user."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
_PASSWORDS_FILE, _SECRETS_FILE = "passwords.json", "secrets.json"


def environment(home: Path, lake_uri: str, emr_endpoint: str, port: int = 0) -> dict[str, str]:
    """Return the environment variables for every process of a local Airflow.

    Create Airflow's password and secrets if they do not exist yet.

    Args:
        home: Folder of Airflow's database, logs and secrets (``AIRFLOW_HOME``).
        lake_uri: URI of the lake.
        emr_endpoint: URL of the embedded EMR and S3.
        port: Port of the UI and API. Not used by a headless run.
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
        # Sizes for this machine, instead of those for the nodes of a cluster on AWS.
        "NIGHTJAR_SPARK_EXECUTORS": "2",
        "NIGHTJAR_SPARK_EXECUTOR_CORES": "1",
        **inherited,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PYTHONUNBUFFERED": "1",
        "NIGHTJAR_LAKE": lake_uri,
        "NIGHTJAR_COMMAND": ".venv/bin/nightjar",
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AIRFLOW_HOME": str(home),
        **_airflow_settings(home, port),
    }


def admin_password(home: Path) -> str:
    """Return the password of Airflow's user ``admin``. The first call creates it and stores it in the folder `home`."""
    return read_or_create(home / _PASSWORDS_FILE, {"admin": secrets.token_urlsafe(9)})["admin"]


def _airflow_settings(home: Path, port: int) -> dict[str, str]:
    admin_password(home)
    keys = read_or_create(home / _SECRETS_FILE, {"api": secrets.token_hex(32), "jwt": secrets.token_hex(64)})
    url = f"http://127.0.0.1:{port}"
    settings = {
        "CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",  # each parallel task is a process, and the default is 32
        "CORE__FERNET_KEY": "",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / _PASSWORDS_FILE),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # SQLite has one writer at a time. On a busy machine, other writers wait longer than the default timeout of 5 s,
        # and the API then answers with an internal error.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "API__SECRET_KEY": keys["api"],
        "API_AUTH__JWT_SECRET": keys["jwt"],
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # A worker exits this many seconds after its task. With a larger value, a short step could end before the
        # worker that deferred its task has exited. The scheduler then mistakes that exit for the end of the task and
        # fails it.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # On a busy machine, the response to a task's start may take longer than the default of 5 s. The task then
        # repeats the request, which is refused because the task is running.
        "WORKERS__EXECUTION_API_TIMEOUT": "60",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {f"AIRFLOW__{key}": value for key, value in settings.items()}


def read_or_create(path: Path, new: dict[str, str]) -> dict[str, str]:
    """Return the content of the JSON file at `path`.

    If the file is missing, create it with the content `new`. Only this user can read it.
    """
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(new), "utf-8")
        temporary.replace(path)
    content: dict[str, str] = json.loads(path.read_text("utf-8"))
    return content
