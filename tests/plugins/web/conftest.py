"""Fixtures of the pages' tests: a real API server of Airflow with a lake of runs, and users with and without rights."""

import pytest

from tests.support.pages import runs_in, serve

ROLES = ("viewer", "user", "op", "admin")
"""The roles of the simple auth manager. Each has a user of its name, and the user `nobody` has none."""
PASSWORDS = {name: f"{name}-password" for name in (*ROLES, "nobody")}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    users = ",".join([*(f"{role}:{role}" for role in ROLES), "nobody:"])
    settings = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users}
    with serve(tmp_path_factory.mktemp("site"), PASSWORDS, settings) as running:
        yield running


@pytest.fixture(scope="session")
def viewer(site):
    """The token of a user who may only read."""
    return site.token("viewer")


@pytest.fixture(scope="session")
def runs(site):
    with runs_in(site.lake) as written:
        yield written
