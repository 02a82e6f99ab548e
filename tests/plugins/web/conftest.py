"""Fixtures of the pages' tests: a real API server of Airflow with a lake of runs, and users with and without rights."""

import pytest

from jobs.lake.uri import local_path
from tests.support.pages import runs_in, serve

ROLES = ("viewer", "user", "op", "admin")
"""The roles of the simple auth manager. Each has a user of its name, and the user `nobody` has none."""
PASSWORDS = {name: f"{name}-password" for name in (*ROLES, "nobody")}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    users = ",".join([*(f"{role}:{role}" for role in ROLES), "nobody:"])
    settings = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users}
    with serve(tmp_path_factory.mktemp("site"), PASSWORDS, settings) as running:
        yield running


@pytest.fixture(scope="session")
def viewer(server):
    """The token of a user who may only read."""
    return server.token("viewer")


@pytest.fixture(scope="session")
def runs(server):
    with runs_in(server.lake) as written:
        yield written


@pytest.fixture(scope="module")
def site(server, runs):
    """The server, whose lake has these runs. What a file of tests adds to the lake beside them is removed after it."""
    lake = local_path(server.lake.uri)
    kept = [local_path(run.uri) for run in (runs.first, runs.second, runs.failed, runs.live)]
    before = set(lake.rglob("*"))
    yield server
    for added in sorted(set(lake.rglob("*")) - before, reverse=True):
        if not any(added.is_relative_to(folder) for folder in kept):
            added.rmdir() if added.is_dir() and not added.is_symlink() else added.unlink()
