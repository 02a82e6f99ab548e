"""Planted faults: the error of the task names the right cause, on the first try and on the last one.

Each fault is real: a broken process, a denied call, a cluster that ends. EMR's own words about a step are left out,
because on AWS they are mostly "Unknown Error.". `make planted` runs all of them and prints the table.
"""

import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import TaskDeferred

from bench.table import show
from infra.emr.control import Control
from jobs.config import resolve
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from nightjar.aws import store
from nightjar.emr import requests
from nightjar.emr.reaper import reap
from nightjar.errors import FinalError, StepFailedError, UserError
from nightjar.operators import SparkStepOperator
from tests.plugins.emr.conftest import fire, terminate
from tests.support import airflow
from tests.support.emr_faults import change
from tests.support.handmade import FINGERPRINT, TINY_MODEL, make_datasets, train_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = "planted"
PYTHON = sys.executable
ROOT = Path(__file__).parents[3]
JOB = f"exec {PYTHON} -m jobs"
INLINE = f'{JOB} "$@" --engine inline'


def job_after(code):
    """Return the command of a job in whose process `code` runs first."""
    program = f"import sys; {code}; from jobs.cli.main import main; sys.exit(main())"
    return f"""exec {PYTHON} -c '{program}' "$@" --engine inline"""


SPARK = f'{JOB} "$@" --engine spark --master'
IMPATIENT = "from jobs.lake import retry; retry.LIMIT_SECONDS = 4.0"
"""Shortens the lake's patience of two minutes."""
TEXT = b"some say the world will end in fire\n\nsome say in ice\n\n" * 300


@dataclass
class Scene:
    """A run, and what plants faults into it."""

    run: object
    context: dict
    control: Control
    client: object

    @property
    def lake(self):
        return Lake(self.run.lake_uri)

    @property
    def corpus(self):
        return join(self.lake.uri, "corpora", "a.txt")

    def deny(self, what, kind="denied", **fields):
        key = self.lake.uri.partition(f"{airflow.BUCKET}/")[2]
        match = {"Key": f"{key}/{what}"}
        self.control.fault(kind, service="s3", match=match, count=None, **fields)


@dataclass(frozen=True)
class Fault:
    """A planted fault, and the words by which the task's error names it."""

    name: str
    words: str
    command: str = INLINE
    kind: type = StepFailedError
    step: str = "tokenize"
    is_local: bool = False
    """Whether the lake is a folder, with datasets made by hand for the train step."""
    settings: dict = field(default_factory=dict)
    plant: Callable = lambda _: None
    """Called before each try."""
    strike: Callable = lambda *_: None
    """Called with the id of the cluster while the task waits for its step."""


def end_by_hand(scene, cluster_id):
    scene.client.terminate_job_flows(JobFlowIds=[cluster_id])


def end_by_reaper(scene, cluster_id):
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    scene.client.add_tags(ResourceId=cluster_id, Tags=[{"Key": "nightjar:expires", "Value": past}])
    assert reap(scene.client, store(), scene.lake, PROJECT, 0.1) == [cluster_id]


def take_capacity(scene):
    scene.control.fault("no-capacity", match={"Name": f"*{scene.run.run_id}"}, count=None)


def fail_bootstrap(scene):
    script = join(scene.lake.uri, "fail.sh")
    store().write_bytes(script, b"#!/bin/sh\necho 'bootstrap: FAILED: no wheel of torch' >&2\nexit 1\n")
    action = {"Name": "broken", "ScriptBootstrapAction": {"Path": script, "Args": []}}

    def edit(params, **_):
        params["BootstrapActions"] = [action]

    scene.client.meta.events.register("provide-client-params.emr.RunJobFlow", edit)


def lose_corpus(scene):
    store().delete_file(scene.corpus)


CHEAP = (
    Fault("missing module", r"ModuleNotFoundError: No module named 'typer'",
          f'PYTHONPATH={ROOT} exec {PYTHON} -S {ROOT}/plugins/nightjar/packaging/launcher.py "$@"'),
    Fault("wrong Python", r"/opt/nightjar/env/bin/python: No such file", 'exec /opt/nightjar/env/bin/python "$@"'),
    Fault("OOM kill", r"the driver was killed \(SIGKILL\).*raise spark\.driver_memory", "kill -9 $$"),
    Fault("bootstrap exit 1", r"cluster \S+ is TERM\S+; a bootstrap action failed: On the master instance .*, bootstrap"
          r" action 1 returned a non-zero.*; bootstrap: FAILED: no wheel of torch",
          kind=FinalError, plant=fail_bootstrap),
    Fault("no capacity", r"cluster \S+ is TERM\S+; AWS had no capacity for it: .*capacity", kind=FinalError,
          plant=take_capacity),
    Fault("bad argument", r"no such option: --colour", f'{JOB} "$@" --colour blue', UserError),
    Fault("cluster ended by hand", r"cluster \S+ is TERM\S+; it was ended by hand .*Terminated by user request",
          "sleep 60", FinalError, strike=end_by_hand),
    Fault("reaper", r"it was ended by the reaper: .*cluster\.time_to_live_hours", "sleep 60", FinalError,
          strike=end_by_reaper),
    Fault("logs denied", r"its logs cannot be read \(\[Errno 13\] AccessDenied: 's3://\S+/logs/", "echo no; exit 1",
          plant=lambda scene: scene.deny("logs/*", callers=["client"])),
)  # fmt: skip
COSTLY = (
    Fault("missing module in a step", r"ModuleNotFoundError: .*gigatoken.*\(jobs/\S+\.py:\d+, host",
          job_after('sys.modules["gigatoken"] = None')),
    Fault("wrong Python on executors", r"Cannot run program \W*/opt/none/python",
          f"export PYSPARK_PYTHON=/opt/none/python; {SPARK} 'local[2]'"),
    Fault("S3 403", r"s3://\S+/corpora/a\.txt: cannot be read \(403\)", kind=UserError,
          plant=lambda scene: scene.deny("corpora/*", callers=["step"])),
    Fault("S3 404", r"s3://\S+/corpora/a\.txt: no file there", kind=UserError, plant=lose_corpus),
    Fault("S3 503 of the corpus", r"LakeError: s3://\S+/corpora/a\.txt: the lake was unreachable for 4 s \(.*503",
          job_after(IMPATIENT),
          plant=lambda scene: scene.deny("corpora/*", "unavailable", callers=["step"])),
    Fault("S3 503 of the lake", r"s3://\S+: the lake was unreachable for 4 s \(",
          job_after(IMPATIENT),
          plant=lambda scene: scene.deny("*", "unavailable", callers=["step"])),
    Fault("empty partition of the corpus", r"s3://\S+/corpora/a\.txt: no text in its 1 files", kind=UserError,
          plant=lambda scene: store().write_bytes(scene.corpus, b" \n" * 5000)),
    Fault("empty partition of the split", r"valid\w* .*windows\.", kind=UserError, step="windows",
          command=f'{PYTHON} -m jobs tokenize --config "$3" --engine inline && {INLINE}',
          plant=lambda scene: store().write_bytes(scene.corpus, b"some say in ice " * 8)),
    Fault("too few slots", r"train\.workers \(2\) needs as many slots .* Spark on local\[1\] has 1",
          f"{SPARK} 'local[1]'",
          UserError, "train", is_local=True, settings={"train.workers": 2}),
    Fault("NaN", r"DivergedError: training diverged at step \d+: .*\bnan\b.*lower train\.learning_rate", step="train",
          is_local=True, settings={"train.learning_rate": 1e20}),
    Fault("disk full", r"LakeError: file://\S+: the disk is full", f"ulimit -f 8; {INLINE}", is_local=True),
    Fault("logs denied, with an outcome", r"s3://\S+/corpora/a\.txt: cannot be read \(403\)", kind=UserError,
          plant=lambda scene: (scene.deny("corpora/*", callers=["step"]), scene.deny("logs/*", callers=["client"]))),
)  # fmt: skip
CASES = [
    *(pytest.param(fault, id=fault.name) for fault in CHEAP),
    *(pytest.param(fault, id=fault.name, marks=pytest.mark.planted) for fault in COSTLY),
]


@pytest.fixture
def scene(fault, emr, aws, client, monkeypatch, tmp_path):
    name = f"planted-{uuid.uuid4().hex[:8]}"
    lake = Lake((tmp_path / "my lake").as_uri() if fault.is_local else f"s3://{airflow.BUCKET}/{name}")
    for key, value in {"LAKE": lake.uri, "PROJECT": PROJECT, "POLL_SECONDS": "0.2"}.items():
        monkeypatch.setenv(f"NIGHTJAR_{key}", value)
    run = lake.run(name, "default", PROJECT)
    corpus = join(lake.uri, "corpora", "a.txt")
    store().write_bytes(corpus, TEXT)
    settings = {**TINY_MODEL, "train.workers": 1, "tokenize.vocab_size": 300, **fault.settings}
    store().publish(run.config, resolve(corpus, "tiny", settings).to_json().encode())
    if fault.step == "train":
        make_datasets(lake, train_tokenizer())
        store().write_json(run.datasets, {"tokens": FINGERPRINT, "windows": FINGERPRINT})
    change(client, "DescribeStep", say_nothing)
    task = SimpleNamespace(dag_id="train_llm", run_id=name, xcom_push=lambda **_: None, xcom_pull=lambda **_: None)
    context = {"run_id": name, "ti": task, "params": {"corpus": corpus, "preset": "tiny"}}
    made = Scene(run, context, Control(emr.endpoint), client)
    yield made
    made.control.clear()
    terminate(context)


def say_nothing(answer):
    """Leave out EMR's words about a failed step."""
    status = answer["Step"]["Status"]
    status.get("StateChangeReason", {}).pop("Message", None)
    if "FailureDetails" in status:
        status["FailureDetails"] = {"Reason": "Unknown Error."}


@pytest.fixture(scope="module")
def table():
    rows = []
    yield rows
    show("Planted faults", ("fault", "try", "error", "cause named"), rows)


@pytest.mark.parametrize("fault", CASES)
def test_the_error_names_the_cause(fault, scene, table, monkeypatch):
    monkeypatch.setattr(requests, "spark_submit", lambda *_: ["bash", "-c", fault.command, "step"])
    errors = []
    for number in ("first", "last"):
        fault.plant(scene)
        errors.append(attempt(fault, scene))
        scene.control.clear()
        named = bool(re.search(fault.words, str(errors[-1])))
        table.append((fault.name, number, type(errors[-1]).__name__, "yes" if named else "NO"))
    for error in errors:
        assert re.search(fault.words, str(error)), error
        assert type(error) is fault.kind
        assert len(str(error).splitlines()) == 1


def attempt(fault, scene):
    """Run a try of the task as Airflow does, and return the error that it ends with."""
    operator = SparkStepOperator(task_id=fault.step, step=fault.step, cluster_id="", package_uri="s3://lakes/p")
    go_on = lambda: operator.execute(scene.context)  # noqa: E731
    while True:
        try:
            go_on()
        except TaskDeferred as deferred:
            trigger = deferred.trigger
            fault.strike(scene, operator.cluster_id)
            event = fire(trigger)
            go_on = lambda: operator.finish(scene.context, event)  # noqa: E731, B023
        except Exception as error:  # noqa: BLE001 - any error is what the user sees
            return error
        else:
            pytest.fail("the step succeeded")
