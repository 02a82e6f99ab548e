"""What a container of ``docker-compose.yaml`` runs; the image's entry point.

    python -m infra.compose.container secrets             # makes what is missing of passwords and keys, checks the lake
    python -m infra.compose.container emr                 # the embedded EMR
    python -m infra.compose.container airflow WORDS...    # a part of Airflow, such as: airflow scheduler
    python -m infra.compose.container password            # tells the password of the user admin

Passwords and keys are random, made at the first start, and kept in volumes. The training code that the embedded EMR
runs sees none of them: its container has neither volume. Exit code 2 means that the user has to do something.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.airflow.environment import admin_password, environment, kept

HOME = Path("/airflow")
"""Volume of Airflow: keys, passwords, logs, statistics."""
DATABASE_PASSWORD = Path("/database/password")
"""In a volume that PostgreSQL sees too."""
LAKE = Path("/lake")
"""The user's folder."""
WORK = Path("/work")
"""Volume of the embedded EMR: where steps work."""

# Names of services, as the other containers know them.
API_PORT, EMR_PORT = 8080, 5555
API_SERVER, DATABASE, EMR = "api-server", "postgres", "emr"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words say; parts that serve take the place of this process."""
    what, *words = sys.argv[1:] if argv is None else argv
    if what == "secrets":
        return make_secrets()
    if what == "password":
        sys.stdout.write(f"{admin_password(HOME)}\n")
        return 0
    if what == "emr":
        _become(emr_command(), dict(os.environ))
    if what == "airflow":
        _become(["airflow", *words], airflow_environment())
    sys.stderr.write(f"{__doc__}\n")
    return 2


def make_secrets() -> int:
    """Make the passwords and keys that are missing; check that the lake can be written to."""
    admin_password(HOME)
    password = _secrets()["database"]
    if not DATABASE_PASSWORD.exists():
        DATABASE_PASSWORD.write_text(password, "utf-8")  # PostgreSQL's user reads it: it is another one
        DATABASE_PASSWORD.chmod(0o444)
    if not os.access(LAKE, os.W_OK):
        uid, gid = os.getuid(), os.getgid()
        sys.stderr.write(
            f"the lake's folder cannot be written to by {uid}:{gid}, as whom the containers run: chown -R {uid}:{gid} "
            "it, or put the numbers of its owner into .env (NIGHTJAR_UID, NIGHTJAR_GID) and run make up\n"
        )
        return 2
    return 0


def airflow_environment() -> dict[str, str]:
    """The environment of every part of Airflow: that of `make airflow`, with other addresses and PostgreSQL."""
    own = _secrets()
    env = environment(HOME, LAKE.as_uri(), f"http://{EMR}:{EMR_PORT}", API_PORT)
    no_proxy = f"{env['no_proxy']},{API_SERVER},{EMR}"
    return {
        **env,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "NIGHTJAR_STATS_DIR": str(HOME / "stats"),
        "AIRFLOW__CORE__FERNET_KEY": own["fernet"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{API_SERVER}:{API_PORT}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow:{own['database']}@{DATABASE}/airflow",
        "AIRFLOW__API__HOST": "0.0.0.0",  # noqa: S104 - of the container; the host's port is on loopback
        "AIRFLOW__API__BASE_URL": "/",  # whichever port of the host leads here
    }


def emr_command() -> list[str]:
    """What starts the embedded EMR, on the network that it shares with Airflow and nowhere else.

    What an earlier one left is removed: its clusters ended with it.
    """
    for left in WORK.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    state = ["--state-dir", str(WORK / "emr")]
    return ["python", "-m", "infra.emr", "--host", EMR, "--port", str(EMR_PORT), *state]


def _secrets() -> dict[str, str]:
    fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return kept(HOME / "container.json", {"database": secrets.token_hex(24), "fernet": fernet})


def _become(command: Sequence[str], env: dict[str, str]) -> None:
    os.execvpe(command[0], list(command), env)  # noqa: S606 - signals then reach the part itself


if __name__ == "__main__":
    sys.exit(main())
