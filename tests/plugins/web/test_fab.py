"""Who may read the pages and roll back a champion, with the users and roles of Airflow's FAB provider.

`make test-long` installs it apart.
"""

from functools import partial
from urllib.error import HTTPError

import pytest

from infra.airflow.environment import PROJECT_ROOT
from infra.airflow.standalone import call
from tests.support.pages import addresses, check_login, runs_in, serve

PYTHON = PROJECT_ROOT / ".venv-fab" / "bin" / "python"
MANAGER = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
USERS = ("admin", "viewer", "other", "runs", "logs", "starts", "edits", "nobody")
PASSWORDS = {user: f"{user}-password" for user in USERS}
OF_OTHER = (("can_read", "DAG:reap_clusters"), ("can_read", "DAG Runs"), ("can_read", "Task Logs"))
"""The permissions of a user who may read another DAG with its runs and logs, but not `train_llm`."""
OF_RUNS = (("can_read", "DAG:train_llm"), ("can_read", "DAG Runs"))
"""The permissions of a user who may read the DAG and its runs, but not the logs of its tasks."""
OF_STARTS = (("can_read", "DAG:rollback_champion"), ("can_read", "DAG Runs"), ("can_create", "DAG Runs"))
"""The permissions of a user who may start runs, and read the DAG that rolls the champion back, but not edit it."""
ROLES = {
    "other": OF_OTHER,
    "runs": OF_RUNS,
    "logs": (*OF_RUNS, ("can_read", "Task Logs")),
    "starts": OF_STARTS,
    "edits": (*OF_STARTS, ("can_edit", "DAG:rollback_champion")),
    "nobody": (),
}
"""The roles that the test makes, with their permissions. Each has a user of its name."""

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs the FAB provider: make .venv-fab/made"),
]


@pytest.fixture(scope="module")
def fab(tmp_path_factory):
    """An API server of Airflow whose users and roles are those of the FAB provider."""
    create_admin = [
        *("users", "create", "--username", "admin", "--role", "Admin", "--email", "admin@nightjar.test"),
        *("--firstname", "Ada", "--lastname", "Admin", "--password", PASSWORDS["admin"]),
    ]
    prepare = [["dags", "reserialize"], ["sync-perm", "--include-dags"], create_admin]
    settings = {"AIRFLOW__CORE__AUTH_MANAGER": MANAGER, "AIRFLOW__FAB__ENABLE_PROXY_FIX": "False"}
    with serve(
        tmp_path_factory.mktemp("fab"), PASSWORDS, settings, airflow=[str(PYTHON), "-m", "airflow"], prepare=prepare
    ) as running:
        admin, api = running.token("admin"), f"{running.url}/auth/fab/v1"
        for role, permissions in ROLES.items():
            actions = [{"action": {"name": action}, "resource": {"name": resource}} for action, resource in permissions]
            call(f"{api}/roles", {"name": role, "actions": actions}, admin)
        for user in (*ROLES, "viewer"):
            names = {"username": user, "email": f"{user}@nightjar.test", "first_name": user, "last_name": "User"}
            role = "Viewer" if user == "viewer" else user
            call(f"{api}/users", {**names, "roles": [{"name": role}], "password": PASSWORDS[user]}, admin)
        yield running


@pytest.fixture(scope="module")
def written(fab):
    with runs_in(fab.lake) as runs:
        yield runs


def test_a_route_needs_a_login(fab, written):
    assert all("/auth/login" in location for location in check_login(fab, written))


@pytest.mark.parametrize("user", ["other", "nobody"])
def test_a_user_without_the_dag_may_read_no_page(fab, written, user):
    token = fab.token(user)
    for address in addresses(written):
        refused = fab.ask(address, token)
        assert (address, refused.status) == (address, 403)
        assert b"shakespeare" not in refused.body


@pytest.mark.parametrize("user", ["admin", "viewer", "logs"])
def test_a_user_who_may_read_the_dag_may_read_all_pages(fab, written, user):
    token = fab.token(user)
    for address in addresses(written):
        assert (address, fab.ask(address, token).status) == (address, 200)


@pytest.mark.parametrize(
    ("user", "status"), [("other", 403), ("nobody", 403), ("admin", 422), ("viewer", 422), ("runs", 422)]
)
def test_a_model_may_be_tried_by_who_may_read_the_dag(fab, written, user, status):
    """The question is empty, which is found after the rights."""
    assert fab.ask(f"/nightjar/runs/try/{written.live.folder}", fab.token(user), "POST").status == status


def test_files_need_the_right_to_read_logs(fab, written):
    token = fab.token("runs")
    for address in addresses(written):
        expected = 403 if address.startswith("/nightjar/lake/") else 200
        assert (address, fab.ask(address, token).status) == (address, expected)


@pytest.mark.parametrize(("user", "may"), [("starts", False), ("viewer", False), ("edits", True), ("admin", True)])
def test_a_rollback_needs_the_right_to_edit_its_dag(fab, user, may):
    body = {"logical_date": None, "dag_run_id": f"by-{user}", "conf": {"why": "a test"}}
    start = partial(call, f"{fab.url}/api/v2/dags/rollback_champion/dagRuns", body, fab.token(user))
    if may:
        assert start()["dag_run_id"] == f"by-{user}"
    else:
        with pytest.raises(HTTPError, match="403"):
            start()


def test_the_tab_of_a_dag_run_needs_the_right_to_read_that_dag(fab, written):
    for dag_id, expected in (("reap_clusters", 403), ("train_llm", 200)):
        assert fab.ask(f"/nightjar/runs/of?dag_id={dag_id}&run_id=r", fab.token("runs")).status == expected
