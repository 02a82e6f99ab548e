"""Planted faults: the error of the task names the right cause, on the first try and on the last one.

Each fault is real: a broken process, a denied call, a cluster that ends. EMR's own words about a step are left out,
because on AWS they are mostly "Unknown Error.". `make planted` runs all of them and prints the table.
"""

import logging
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

pytestmark = pytest.mark.slow

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
    """A planted fault, and what the task's error says of it."""

    name: str
    words: str
    """The whole cause, where ``*`` stands for a word and ``**`` for several."""
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
    exception: str = ""
    """Class of the driver's exception, if the task's error names it."""
    logged: str | None = None
    """What the task's log shows of the driver's log, by default the cause; "" if no driver has failed."""

    @property
    def message(self):
        """The whole message of the task's error, as a pattern."""
        words = pattern_of(self.words)
        if self.kind is FinalError:
            return rf"({self.step} did not finish: )?{words}"
        if self.kind is UserError:
            return words
        cause = rf"{self.exception}: {words} \(jobs/\S+\.py:\d+, host \S+\)" if self.exception else words
        return rf"{self.step} failed \(step s-\w+\): {cause}"


def pattern_of(words):
    return re.escape(words).replace(r"\*\*", "[^;]+").replace(r"\*", r"\S+")


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


def deny_corpus(scene):
    scene.deny("corpora/*", callers=["step"])


def deny_logs(scene):
    scene.deny("logs/*", callers=["client"])


CHEAP = (
    Fault("missing module", "ModuleNotFoundError: No module named 'typer'",
          f'PYTHONPATH={ROOT} exec {PYTHON} -S {ROOT}/plugins/nightjar/packaging/launcher.py "$@"'),
    Fault("wrong Python", "step: line 1: /opt/nightjar/env/bin/python: No such file or directory",
          'exec /opt/nightjar/env/bin/python "$@"'),
    Fault("OOM kill", "the driver was killed (SIGKILL), probably because the primary node ran out of"
          " memory; raise spark.driver_memory, or choose larger cluster.primary_instance_types", "kill -9 $$",
          logged="(the driver wrote no log)"),
    Fault("bootstrap exit 1", "cluster * is TERMINATED_WITH_ERRORS; a bootstrap action failed: On the master"
          " instance (i-*), bootstrap action 1 returned a non-zero return code (BOOTSTRAP_FAILURE); bootstrap:"
          " FAILED: no wheel of torch; 3 clusters of this run ended, and no further cluster is created",
          kind=FinalError, plant=fail_bootstrap, logged=""),
    Fault("no capacity", "cluster * is TERMINATED_WITH_ERRORS; AWS had no capacity for it: EC2 is out of capacity"
          " for m6i.xlarge in availability zone *. Learn more at * (INTERNAL_ERROR); 3 clusters of this run ended,"
          " and no further cluster is created", kind=FinalError, plant=take_capacity, logged=""),
    Fault("bad argument", "python -m jobs tokenize: no such option: --colour (Possible options: --corpus); see"
          " python -m jobs tokenize --help", f'{JOB} "$@" --colour blue', UserError),
    Fault("cluster ended by hand", "cluster * is TERMINATED; it was ended by hand or by another program: Terminated"
          " by user request (USER_REQUEST)", "sleep 60", FinalError, strike=end_by_hand, logged=""),
    Fault("reaper", "cluster * is TERMINATED; it was ended by the reaper: after 0.0 h, past the limit"
          " cluster.time_to_live_hours; Terminated by user request (USER_REQUEST)", "sleep 60", FinalError,
          strike=end_by_reaper, logged=""),
    Fault("logs denied", "its logs cannot be read ([Errno 13] AccessDenied: 's3://*/logs/*.gz')", "echo no; exit 1",
          plant=deny_logs, logged="(its logs cannot be read: [Errno 13] AccessDenied: "),
)  # fmt: skip
COSTLY = (
    Fault("missing module in a step", "import of gigatoken halted; None in sys.modules",
          job_after('sys.modules["gigatoken"] = None'), exception="ModuleNotFoundError"),
    Fault("wrong Python on executors", "a task failed: IOException: Cannot run program \"/opt/none/python\": error=2,"
          " No such file or directory", f"export PYSPARK_PYTHON=/opt/none/python; {SPARK} 'local[2]'",
          exception="WorkerLostError"),
    Fault("S3 403", "s3://*/corpora/a.txt: cannot be read (403); check the corpus", kind=UserError,
          plant=deny_corpus),
    Fault("S3 404", "s3://*/corpora/a.txt: no file there, and no folder with files; give the path or URI of a text"
          " file or folder", kind=UserError, plant=lose_corpus),
    Fault("S3 503 of the corpus", "s3://*/corpora/a.txt: the lake was unreachable for 4 s (ClientError: An error"
          " occurred (503) when calling the HeadObject operation (reached max retries: 3): **); run the same command"
          " again later; finished work is kept", job_after(IMPATIENT), exception="LakeError",
          plant=lambda scene: scene.deny("corpora/*", "unavailable", callers=["step"])),
    Fault("S3 503 of the lake", "nightjar: s3://*/config.json: the lake was unreachable for 4 s (ClientError: An"
          " error occurred (ServiceUnavailable) when calling the GetObject operation (reached max retries: 3): **);"
          " run the same command again later; finished work is kept", job_after(IMPATIENT),
          plant=lambda scene: scene.deny("*", "unavailable", callers=["step"])),
    Fault("empty partition of the corpus", "s3://*/corpora/a.txt: no text in its 1 file (empty, or only whitespace);"
          " give files with text", kind=UserError,
          plant=lambda scene: store().write_bytes(scene.corpus, b" \n" * 5000)),
    Fault("empty partition of the split", "corpus too short: its validation part has 0 tokens in 0 documents, but"
          " a window of windows.size=16 needs 17 tokens; the corpus has * tokens in 1 document, and documents are too"
          " short to be cut; give more text", kind=UserError, step="windows",
          command=f'{PYTHON} -m jobs tokenize --config "$3" --engine inline && {INLINE}',
          plant=lambda scene: store().write_bytes(scene.corpus, b"some say in ice " * 8)),
    Fault("too few slots", "train.workers (2) needs 2 slots at the same time, but Spark on local[1] has 1;"
          " lower train.workers, or raise spark.executors or spark.executor_cores", f"{SPARK} 'local[1]'", UserError,
          "train", is_local=True, settings={"train.workers": 2}),
    Fault("NaN", "training diverged at step *: loss *, gradient norm nan; training windows ** (all in the log);"
          " lower train.learning_rate (1e+20) or look at these windows", step="train", is_local=True,
          settings={"train.learning_rate": 1e20}, exception="DivergedError"),
    Fault("disk full", "file://*: the disk is full; the incomplete file was removed; make room and run the same"
          " command again", f"ulimit -f 8; {INLINE}", is_local=True, exception="LakeError"),
    Fault("logs denied, with an outcome", "s3://*/corpora/a.txt: cannot be read (403); check the corpus",
          kind=UserError, plant=lambda scene: (deny_corpus(scene), deny_logs(scene)),
          logged="(its logs cannot be read: [Errno 13] AccessDenied: "),
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
def test_error_and_log_name_the_cause(fault, scene, table, monkeypatch, caplog):
    monkeypatch.setattr(requests, "spark_submit", lambda *_: ["bash", "-c", fault.command, "step"])
    monkeypatch.setattr(SparkStepOperator, "log", logging.getLogger("task"))  # Airflow's own only prints
    errors, logs = [], []
    for number in ("first", "last"):
        caplog.clear()
        fault.plant(scene)
        errors.append(attempt(fault, scene))
        scene.control.clear()
        logs.append(caplog.text.partition("Last lines of the driver's log")[2])
        named = bool(re.fullmatch(fault.message, str(errors[-1])))
        table.append((fault.name, number, type(errors[-1]).__name__, "yes" if named else "NO"))
    for error, log in zip(errors, logs, strict=True):
        assert re.fullmatch(fault.message, str(error)), error
        assert type(error) is fault.kind
        # Airflow logs the error; the log of the driver is before it.
        assert re.search(pattern_of(fault.words if fault.logged is None else fault.logged), log), log
        assert bool(log) == (fault.logged != "")


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
