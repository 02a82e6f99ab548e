"""A live Airflow with scheduler, triggerer and API, whose steps run a stand-in for the job, and a user of its API."""

import http.client
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.airflow.standalone import LocalAirflow, call, local_airflow, login
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from tests.support.airflow import STANDIN
from tests.support.waiting import PATIENCE_SECONDS

ENDED = ("success", "failed")


@dataclass(frozen=True)
class User:
    """A logged-in user of Airflow's API."""

    airflow: LocalAirflow
    token: str
    lake: Lake
    corpus: str
    dag_id: str = "train_llm"

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        return call(f"{self.airflow.url}/api/v2/dags/{self.dag_id}/{path}", body, self.token, method)

    def trigger(self, run_id: str = "", **conf: object) -> Run:
        run_id = run_id or f"run-{uuid.uuid4().hex[:8]}"
        chosen = {"corpus": self.corpus, "preset": "tiny"} | {
            key.replace("__", "."): value for key, value in conf.items()
        }
        self.start(run_id, chosen)
        return self.lake.run(run_id, DEFAULT)

    def start(self, run_id: str, conf: Mapping[str, Any]) -> None:
        """Trigger a run with these values of the form."""
        self.ask("dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})

    def wait(self, run: Run, limit_seconds: float = 600) -> str:
        """Wait for the end of the run and return its final state."""
        deadline = time.monotonic() + limit_seconds
        while (state := self.ask(f"dagRuns/{run.run_id}")["state"]) not in ENDED:
            assert time.monotonic() < deadline, self.states(run)
            time.sleep(0.5)
        return str(state)

    def states(self, run: Run) -> dict[str, str | None]:
        found = self.ask(f"dagRuns/{run.run_id}/taskInstances")["task_instances"]
        return {each["task_id"]: each["state"] for each in found}

    def page(self, url: str, headers: dict[str, str] | None = None) -> tuple[int, http.client.HTTPMessage, str]:
        """Return status, headers and body of a page, which is requested exactly as it is named."""
        connection = http.client.HTTPConnection(self.airflow.url.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        connection.request("GET", url, headers={"Cookie": f"_token={self.token}"} if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    def log(self, run: Run, task: str) -> str:
        """Return the log of a task's last attempt, as shown in the UI."""
        path = f"dagRuns/{run.run_id}/taskInstances/{task}"
        return json.dumps(self.ask(f"{path}/logs/{self.ask(path)['try_number']}"), ensure_ascii=False)

    def mark(self, run: Run, state: str, task: str = "") -> None:
        """Mark a task, or the whole run, with a state."""
        if task:
            self.ask(f"dagRuns/{run.run_id}/taskInstances/{task}", {"new_state": state}, "PATCH")
        else:
            self.ask(f"dagRuns/{run.run_id}", {"state": state}, "PATCH")

    def clear(self, run: Run, task: str) -> None:
        """Clear a task and all that follow it."""
        clear = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [task], "only_failed": False}
        self.ask("clearTaskInstances", {**clear, "include_downstream": True, "reset_dag_runs": True})


@contextmanager
def live_user(
    folder: Path, corpus: str, lake_uri: str = "", extra_env: Mapping[str, str] | None = None
) -> Iterator[User]:
    """Run Airflow for the duration of the block. The lake is by default in a folder whose name has a space."""
    lake = Lake(lake_uri or (folder / "my lake").as_uri())
    env = {
        "NIGHTJAR_PACKAGE_ROOT": str(STANDIN),
        "NIGHTJAR_STATS_DIR": str(folder / "stats"),
        "NIGHTJAR_POLL_SECONDS": "0.3",
        **(extra_env or {}),
    }
    with local_airflow(folder / "airflow home", lake.uri, extra_env=env) as running:
        yield User(running, login(running.url, running.password), lake, corpus)
