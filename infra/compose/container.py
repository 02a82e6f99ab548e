"""The entry point of the image of ``docker-compose.yaml``.

    python -m infra.compose.container prepare                # give lake and volumes to user nightjar, create passwords
    python -m infra.compose.container emr                    # run the embedded EMR
    python -m infra.compose.container airflow ARGUMENTS...   # run a component of Airflow, such as: airflow scheduler
    python -m infra.compose.container password               # print the password of the user admin

Passwords and keys are random, created at the first start, and stored in volumes. The container of the embedded EMR
mounts none of these volumes, so the training code cannot read the secrets. Exit code 2: the user must correct
something; the message says what.
"""

from __future__ import annotations

import base64
import os
import pwd
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from infra.airflow.environment import admin_password, environment, read_or_create
from infra.lake import folders, sample_corpus
from jobs.errors import InputError

HOME = Path("/airflow")
"""The volume of Airflow: keys, passwords, logs, statistics."""
DATABASE_PASSWORD = Path("/database/password")
"""The file with the database's password, in a volume that PostgreSQL mounts as well."""
LAKE = Path("/lake")
"""The lake: a folder of the host, which docker-compose mounts here."""
WORK = Path("/work")
"""The volume of the embedded EMR: the working folders of steps."""
SAMPLES = Path("/opt/corpora")
"""The folder of the sample corpus. It is empty if the download failed when the image was built."""
USER = "nightjar"

# The name of a service in docker-compose.yaml is its container's host name.
API_PORT, EMR_PORT = 8080, 5555
API_SERVER, DATABASE, EMR = "api-server", "postgres", "emr"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    The commands `emr` and `airflow` do not return, because the service replaces this process.
    """
    what, *arguments = sys.argv[1:] if argv is None else argv
    if what == "prepare":
        become_user()
        return prepare()
    if what == "password":
        sys.stdout.write(f"{admin_password(HOME)}\n")
        return 0
    if what == "emr":
        _replace_process(emr_command(), dict(os.environ))
    if what == "airflow":
        _replace_process(["airflow", *arguments], airflow_environment())
    sys.stderr.write(f"{__doc__}\n")
    return 2


def become_user() -> None:
    """Make the user nightjar the owner of the lake and the volumes, and continue as this user."""
    user = pwd.getpwnam(USER)
    with suppress(PermissionError):  # some file systems forbid it; `prepare` reports a lake that is not writable
        folders.give(LAKE, user.pw_uid, user.pw_gid)
    for volume in (HOME, DATABASE_PASSWORD.parent, WORK):
        folders.take(volume, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def prepare() -> int:
    """Create missing passwords, keys and folders, and copy the sample corpus into the lake.

    Return the exit code: 2 if the lake is not writable.
    """
    admin_password(HOME)
    password = _secrets()["database"]
    if not DATABASE_PASSWORD.exists():
        DATABASE_PASSWORD.write_text(password, "utf-8")  # readable by all: PostgreSQL runs as another user
        DATABASE_PASSWORD.chmod(0o444)
    try:
        folders.make_folders(LAKE)
    except InputError as error:
        sys.stderr.write(f"{error}; in this container, {LAKE} is the folder NIGHTJAR_LAKE_DIR of your machine\n")
        return 2
    if (SAMPLES / sample_corpus.NAME).is_dir():
        sample_corpus.copy(SAMPLES / sample_corpus.NAME, LAKE / folders.CORPORA)
    return 0


def airflow_environment() -> dict[str, str]:
    """Return the environment variables of Airflow's components.

    They differ from those of `make airflow` in the hosts, in the database (PostgreSQL), and in the secrets, which come
    from the volume.
    """
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
        "AIRFLOW__API__HOST": "0.0.0.0",  # noqa: S104 - inside the container; docker-compose publishes the port on loopback
        "AIRFLOW__API__BASE_URL": "/",  # relative, because the port on the host is not known here
    }


def emr_command() -> list[str]:
    """Return the command that starts the embedded EMR. It listens only on the network shared with Airflow.

    The state folder is in a volume. So a new server still lists the clusters of an earlier server, as terminated.
    """
    state = ["--state-dir", str(WORK / "emr")]
    return ["python", "-m", "infra.emr", "--host", EMR, "--port", str(EMR_PORT), *state]


def _secrets() -> dict[str, str]:
    fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return read_or_create(HOME / "container.json", {"database": secrets.token_hex(24), "fernet": fernet})


def _replace_process(command: list[str], env: dict[str, str]) -> None:
    os.execvpe(command[0], command, env)  # noqa: S606 - no shell: signals reach the service itself


if __name__ == "__main__":
    sys.exit(main())
