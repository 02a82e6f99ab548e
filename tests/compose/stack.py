"""The shipped docker-compose.yaml on a real engine: a project of its own, any free port, a lake in a new folder."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.airflow.environment import PROJECT_ROOT
from infra.airflow.standalone import call, login
from infra.lake import folders
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import local_path

ENDED = ("success", "failed")
PARTS = ("api-server", "dag-processor", "emr", "postgres", "scheduler", "triggerer")
POEM = "some say the world will end in fire and some say in ice from what they tasted of desire"
CONF = {
    "preset": "tiny",
    "corpus": "/lake/corpora/some poems é.txt",
    "tokenize.vocab_size": 400,
    "windows.size": 32,
    "train.epochs": 10,
    "generate.max_new_words": 5,
    "spark.driver_memory": "1g",
}


LIVE_CLUSTERS = """
import boto3, json
emr = boto3.client("emr", "us-east-1", endpoint_url="http://emr:5555", aws_access_key_id="local",
                   aws_secret_access_key="local")
clusters = emr.list_clusters(ClusterStates=["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"])
print(json.dumps([cluster["Name"] for cluster in clusters["Clusters"]]))
"""


def say(text: str) -> None:
    """For whoever waits: pytest shows it with -s."""
    sys.stdout.write(f"\n[compose] {text}")
    sys.stdout.flush()


def wait_until(is_true, what: str, limit_seconds: float) -> float:
    """Waits, and tells how many seconds it took."""
    started = time.monotonic()
    while not is_true():
        assert time.monotonic() - started < limit_seconds, f"not {what} after {limit_seconds} s"
        time.sleep(1)
    return time.monotonic() - started


class Stack:
    """One `docker compose` project."""

    def __init__(self, folder: Path) -> None:
        self.project = f"nightjar-test-{uuid.uuid4().hex[:8]}"
        self.lake_dir = folder / "my läke"
        self.uid = os.getuid() or 50000
        self.gid = os.getgid() or 50000
        self.env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "NIGHTJAR_PORT": "0",
            "NIGHTJAR_LAKE_DIR": str(self.lake_dir),
            "NIGHTJAR_UID": str(self.uid),
            "NIGHTJAR_GID": str(self.gid),
        }
        self.url = self.password = self.token = ""

    def make_lake(self) -> None:
        """A lake as `make demo` leaves it: of root, if these tests run as root."""
        folders.make_folders(self.lake_dir)
        (self.lake_dir / "runs" / "demo").mkdir()
        (self.lake_dir / "runs" / "demo" / "config.json").write_text("{}")

    def run(self, *command: str, limit_seconds: float = 120) -> str:
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env=self.env, capture_output=True, text=True, timeout=limit_seconds, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
        return done.stdout

    def compose(self, *words: str, limit_seconds: float = 120) -> str:
        return self.run("docker", "compose", *words, limit_seconds=limit_seconds)

    def up(self) -> None:
        """`make up`, then a login with what it printed."""
        started = time.monotonic()
        said = self.run("make", "up", limit_seconds=900).split()
        self.log_in(said[said.index("at") + 1], said[said.index("password:") + 1])
        say(f"make up: {time.monotonic() - started:.0f} s")

    def up_without_make(self) -> None:
        """Plain `docker compose up`, then a login as the head of docker-compose.yaml says."""
        self.env = {
            key: value for key, value in self.env.items() if not key.startswith(("NIGHTJAR_UID", "NIGHTJAR_GID"))
        }
        self.compose("up", "--detach", "--wait", limit_seconds=900)
        password = self.compose("exec", "-T", "api-server", "python", "-m", "infra.compose.container", "password")
        self.log_in(f"http://{self.compose('port', 'api-server', '8080').strip()}", password.strip())

    def log_in(self, url: str, password: str) -> None:
        self.url, self.password = url, password
        self.token = login(self.url, self.password)

    def build(self) -> None:
        started = time.monotonic()
        self.compose("build", limit_seconds=900)
        size = int(self.run("docker", "image", "inspect", "--format", "{{.Size}}", f"{self.project}-airflow"))
        say(f"build: {time.monotonic() - started:.0f} s, image {size / 1e6:.0f} MB")

    def containers(self) -> dict[str, dict]:
        """What the engine says of every container, by service."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(self.run("docker", "inspect", *ids))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def memory(self) -> dict[str, str]:
        """What every running container holds."""
        lines = self.run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
        own = (line.removeprefix(f"{self.project}-").split() for line in lines if line.startswith(self.project))
        return {name.removesuffix("-1"): held for name, held, *_ in own}

    def remove(self) -> None:
        """Removes everything of the project but the lake."""
        self.compose("down", "--volumes", "--timeout", "30")
        subprocess.run(["docker", "image", "rm", f"{self.project}-airflow"], capture_output=True, check=False)

    def leftovers(self) -> str:
        """Containers, volumes and networks of the project."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = (["ps", "--all"], ["volume", "ls"], ["network", "ls"])
        return "".join(self.run("docker", *kind, "--quiet", "--filter", label) for kind in kinds)

    def ask(self, path: str, body=None, method=None):
        return call(f"{self.url}/api/v2/dags/train_llm/{path}", body, self.token, method)

    def trigger(self, **conf) -> Run:
        return self.trigger_with(CONF | {key.replace("__", "."): value for key, value in conf.items()})

    def trigger_with(self, chosen: dict[str, object]) -> Run:
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        self.ask("dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": chosen})
        return Lake(self.lake_dir.as_uri()).run(run_id, DEFAULT)

    def state(self, run: Run) -> str:
        """The state of a run; "not seen" if the machine is too busy to answer. Every wait has a limit of its own."""
        try:
            return str(self.ask(f"dagRuns/{run.run_id}")["state"])
        except TimeoutError:
            return "not seen"

    def states(self, run: Run) -> dict[str, str]:
        found = self.ask(f"dagRuns/{run.run_id}/taskInstances")["task_instances"]
        return {each["task_id"]: each["state"] for each in found}

    def wait(self, run: Run, limit_seconds: float = 600) -> str:
        """The state in which the run ends."""
        seconds = wait_until(lambda: self.state(run) in ENDED, f"ended ({run.run_id})", limit_seconds)
        say(f"{run.run_id}: {self.state(run)} after {seconds:.0f} s more")
        return self.state(run)

    def log(self, run: Run, task: str) -> str:
        """What the UI shows of a task's last try."""
        place = f"dagRuns/{run.run_id}/taskInstances/{task}"
        return json.dumps(self.ask(f"{place}/logs/{self.ask(place)['try_number']}"), ensure_ascii=False)

    def live_clusters(self) -> list[str]:
        """Names of the embedded EMR's clusters that have not ended."""
        return json.loads(self.compose("exec", "-T", "scheduler", "python", "-c", LIVE_CLUSTERS))

    def until_step(self, run: Run, step: str, limit_seconds: float = 600) -> None:
        """Waits until a step says how far it is; fails as soon as the run has ended without it."""
        progress = local_path(run.progress(step))
        wait_until(lambda: progress.exists() or self.state(run) in ENDED, f"{step} under way", limit_seconds)
        assert progress.exists(), f"{self.state(run)}: {self.states(run)}\n{self.compose('logs', '--tail', '30')}"


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Builds and starts a project; at the end nothing of it is left, but for what lies in the lake."""
    stack = Stack(folder)
    try:
        stack.build()
        stack.lake_dir.parent.chmod(0o755)
        stack.make_lake()
        stack.up()
        words = POEM.split()
        lines = (" ".join(words[(i * j + i) % len(words)] for j in range(3, 17)) for i in range(500))
        (stack.lake_dir / "corpora" / "some poems é.txt").write_text("\n\n".join(lines), "utf-8")
        yield stack
    finally:
        stack.remove()
    assert stack.leftovers() == ""
