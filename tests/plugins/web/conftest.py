"""Fixtures of the pages' tests: a real API server of Airflow with a lake of runs, and users with and without rights."""

import http.client
import json
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from infra.airflow.environment import environment
from infra.airflow.processes import GuardedProcess, free_port, wait_until
from infra.airflow.standalone import AIRFLOW, call
from jobs.lake import store
from jobs.lake.champion import format_champion
from jobs.lake.layout import Lake, Run
from jobs.lake.lease import held
from jobs.lake.outcome import Outcome
from tests.support.results import configure, finish, write_rows

PASSWORDS = {"admin": "admin-password", "viewer": "viewer-password", "nobody": "nobody-password"}
ROLES = "admin:admin,viewer:viewer,nobody:"
"""The users of the simple auth manager. A user without a role may read nothing."""
TIMES = ("2026-11-26T02:00:00.000+00:00", "2026-11-26T02:01:00.000+00:00")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes = field(repr=False)

    @property
    def text(self):
        return self.body.decode()


@dataclass(frozen=True)
class Site:
    """A running API server, and the lake whose runs it shows."""

    url: str
    lake: Lake
    home: object

    def token(self, user):
        return call(f"{self.url}/auth/token", {"username": user, "password": PASSWORDS[user]})["access_token"]

    def ask(self, address, token="", method="GET", **headers):
        """Request an address exactly as it is written."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        if token:
            headers["Cookie"] = f"_token={token}"
        connection.request(method, address, headers=headers)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return found


@dataclass(frozen=True)
class Runs:
    """The runs of the lake: two that are done, one that failed, one whose training goes on."""

    first: Run
    second: Run
    failed: Run
    live: Run


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    lake, port, home = Lake((folder / "my lake").as_uri()), free_port(0), folder / "home"
    home.mkdir()
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    env = environment(home, lake.uri, "http://127.0.0.1:9", port) | {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ROLES,
        "TMPDIR": str(folder),  # the summaries of runs are kept there
    }
    url = f"http://127.0.0.1:{port}"
    with GuardedProcess("migrate", [*AIRFLOW, "db", "migrate"], env, folder / "migrate.log") as migrate:
        migrate.wait_for_success(300)
    command = [*AIRFLOW, "api-server", "--apps", "core"]
    with GuardedProcess("api-server", command, env, folder / "api-server.log") as server:
        wait_until(lambda: _is_up(url), "the API server has not started", [server], 300)
        yield Site(url, lake, home)


def _is_up(url):
    try:
        return bool(call(f"{url}/api/v2/version"))
    except OSError:
        return False


@pytest.fixture(scope="session")
def viewer(site):
    """The token of a user who may only read."""
    return site.token("viewer")


@pytest.fixture(scope="session")
def runs(site):
    lake = site.lake
    first, second = finish(lake.run("manual__2026-11-26T02:00", "default")), lake.run("b <second>", "other dag")
    finish(second, bits_per_byte=1.9, valid_loss=4.1)
    configure(second, train={"seed": 77}, corpus="file:///texts/other")
    store.write_bytes(lake.champion, format_champion("a" * 64, second.run_id, {"bits_per_byte": 1.9}))
    failed, live = lake.run("failed", "default"), lake.run("live", "default")
    configure(failed)
    outcome = Outcome("train", 1, 1, "MemoryError", "no <memory>", "jobs/training/step.py:41", "node-1", *TIMES)
    store.write_bytes(failed.outcome("train", 1), outcome.to_json())
    configure(live)
    write_rows(live, 90, 30)
    store.write_json(live.progress("train"), {"time": time.time(), "message": "step 90 of 600, 1:20 min left"})
    with held(live):
        yield Runs(first, second, failed, live)
