"""The pages in Airflow for tests: an API server with a lake of runs, and an address of each route."""

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlencode, urlsplit

from infra.airflow.environment import environment
from infra.airflow.processes import GuardedProcess, wait_until
from infra.airflow.standalone import AIRFLOW, call
from jobs.cli.ports import free_port
from jobs.lake import store
from jobs.lake.champion import format_champion
from jobs.lake.layout import Lake, Run
from jobs.lake.lock import locked
from jobs.lake.outcome import Outcome
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join
from jobs.metrics.columns import StepRow
from jobs.prices.metering import ClusterUse, InstanceSpan, StepSpan
from jobs.results.rows import read_parts
from nightjar.emr.records import ClusterRecords
from tests.support.results import configure, finish, training_row, write_rows
from tests.support.waiting import PATIENCE_SECONDS

_TIMES = ("2026-11-26T02:00:00.000+00:00", "2026-11-26T02:01:00.000+00:00")


@dataclass(frozen=True)
class Answer:
    """An answer of the API server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass(frozen=True)
class Site:
    """A running API server, and the lake whose runs it shows."""

    url: str
    lake: Lake
    passwords: Mapping[str, str]

    def token(self, user: str) -> str:
        """Log a user in."""
        token: str = call(f"{self.url}/auth/token", {"username": user, "password": self.passwords[user]})[
            "access_token"
        ]
        return token

    def ask(self, address: str, token: str = "", method: str = "GET", **headers: str) -> Answer:
        """Request an address exactly as it is written."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_SECONDS)
        if token:
            headers["Cookie"] = f"_token={token}"
        connection.request(method, address, headers=headers)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return found


@contextmanager
def serve(
    folder: Path,
    passwords: Mapping[str, str],
    settings: Mapping[str, str],
    *,
    airflow: Sequence[str] = AIRFLOW,
    prepare: Sequence[Sequence[str]] = (),
) -> Iterator[Site]:
    """Run an API server of Airflow with a database and a lake of its own.

    Args:
        folder: A folder for its files.
        passwords: The passwords of its users.
        settings: Environment variables that it has beside those of a local Airflow.
        airflow: The command that starts Airflow.
        prepare: The arguments of commands of Airflow that run before it starts.
    """
    lake, port, home = Lake((folder / "my lake").as_uri()), free_port(0), folder / "home"
    home.mkdir()
    (home / "passwords.json").write_text(json.dumps(dict(passwords)))
    # The summaries of runs are kept in TMPDIR.
    env = environment(home, lake.uri, "http://127.0.0.1:9", port) | {"TMPDIR": str(folder)} | dict(settings)
    url = f"http://127.0.0.1:{port}"
    for number, arguments in enumerate([["db", "migrate"], *prepare]):
        with GuardedProcess(arguments[0], [*airflow, *arguments], env, folder / f"{number}.log") as process:
            process.wait_for_success(300)
    command = [*airflow, "api-server", "--apps", "core"]
    with GuardedProcess("api-server", command, env, folder / "api-server.log") as server:
        wait_until(lambda: _is_up(url), "the API server has not started", [server], 300)
        yield Site(url, lake, passwords)


def _is_up(url: str) -> bool:
    try:
        return bool(call(f"{url}/api/v2/version"))
    except OSError:
        return False


@dataclass(frozen=True)
class Runs:
    """The runs of the lake: two that are done, one that failed, one whose training goes on."""

    first: Run
    second: Run
    failed: Run
    live: Run


@contextmanager
def runs_in(lake: Lake) -> Iterator[Runs]:
    """Write runs to a lake."""
    first, second = finish(lake.run("manual__2026-11-26T02:00", "default")), lake.run("b <second>", "other dag")
    finish(second, bits_per_byte=1.9, valid_loss=4.1)
    configure(second, train={"seed": 77}, corpus="file:///texts/other-plays-f393d09d07ea")
    store.write_bytes(lake.pipeline().champion, format_champion("a" * 64, second.run_id, {"bits_per_byte": 1.9}))
    failed, live = lake.run("failed", "default"), lake.run("live", "default")
    configure(failed)
    outcome = Outcome("train", 1, 1, "MemoryError", "no <memory>", "jobs/training/step.py:41", "node-1", *_TIMES)
    store.write_bytes(failed.outcome("train", 1), outcome.to_json())
    configure(live)
    write_rows(live, 90, 30)
    store.write_json(live.progress("train"), {"time": time.time(), "message": "step 90 of 600, 1:20 min left"})
    clusters = ClusterRecords(first, store.ENVIRONMENT), ClusterRecords(live, store.ENVIRONMENT)
    span, rates = InstanceSpan("m6i.xlarge", "on demand", 0.0, 4210.0), {"m6i.xlarge on demand": 1.5}
    used = asdict(ClusterUse("us-east-1", 40.0, (span,), (StepSpan("train", 900.0, 3300.0),), rates))
    clusters[0].add(cluster_id="j-1", ended=True, instance_seconds={"m6i.xlarge on demand": 4210.0}, used=used)
    clusters[1].add(cluster_id="j-2")
    with locked(live):
        yield Runs(first, second, failed, live)


def go_on(live: Run) -> StepRow:
    """Write the metrics of 30 more steps of a run in progress, and return the last one, which is an evaluation."""
    last = read_parts(live)[-1]["step"]
    rows = [training_row(step, is_evaluated=step == last + 30) for step in range(last + 1, last + 31)]
    store.write_bytes(join(live.metrics_parts, f"part-0000-a-{last:06d}.jsonl"), to_jsonl(rows))
    return cast("StepRow", rows[-1])


def check_login(site: Site, runs: Runs) -> list[str]:
    """Check that each route refuses who is not logged in; return where a browser is sent by each."""
    locations = []
    for address in addresses(runs):
        assert (address, site.ask(address).status) == (address, 401)
        assert site.ask(address, "guess").status in (401, 403)
        browser = site.ask(address, Accept="text/html")
        assert browser.status == 307
        locations.append(browser.headers["location"])
    return locations


def addresses(runs: Runs) -> list[str]:
    """Return an address of each route of the plugin."""
    folder = quote(runs.first.folder)
    return [
        "/nightjar/runs",
        "/nightjar/runs/",
        f"/nightjar/runs/show/{folder}",
        f"/nightjar/runs/show/{folder}?part=live",
        f"/nightjar/runs/compare?run={folder}&run={quote(runs.failed.folder)}",
        f"/nightjar/runs/of?{urlencode({'dag_id': 'train_llm', 'run_id': runs.first.run_id})}",
        f"/nightjar/lake/runs/{folder}/",
        f"/nightjar/lake/runs/{folder}/config.json",
        *(f"/nightjar/static/{name}" for name in ("style.css", "page.css", "page.js")),
    ]


def views(runs: Runs) -> dict[str, str]:
    """Return the addresses of the views that look different."""
    folder = quote(runs.first.folder)
    return {
        "list": "/runs",
        "no run": "/runs?q=none+has+this",
        "done": f"/runs/show/{folder}",
        "failed": f"/runs/show/{quote(runs.failed.folder)}",
        "live": f"/runs/show/{quote(runs.live.folder)}",
        "compared": f"/runs/compare?{urlencode({'run': [runs.first.folder, runs.second.folder]}, doseq=True)}",
        "waiting": f"/runs/of?{urlencode({'dag_id': 'train_llm', 'run_id': 'later'})}",
        "folder": f"/lake/runs/{folder}/",
        "not found": "/runs/show/none",
    }
