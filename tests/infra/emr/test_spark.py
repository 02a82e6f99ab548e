"""Steps that run the real `spark-submit`: uploaded code, slots, task attempts, and cancellation."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.emr.jvm import SMALL_JVM
from tests.infra.emr.conftest import ROOT, Emr, command, descendants
from tests.support.waiting import until

pytestmark = pytest.mark.spark

APP = """
import json, os, sys
import helper
from pyspark import BarrierTaskContext, SparkFiles, TaskContext
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
sc = spark.sparkContext

def run_worker_group(_):
    context = BarrierTaskContext.get()
    yield sorted(context.allGather(str(context.partitionId())))

def second_try(i):
    if TaskContext.get().attemptNumber() == 0:
        raise RuntimeError("the first attempt fails")
    return helper.double(i)

print("RESULT", json.dumps({
    "master": sc.master,
    "group": sc.parallelize(range(2), 2).barrier().mapPartitions(run_worker_group).collect(),
    "retried": sc.parallelize([21], 1).map(second_try).collect(),
    "jvms": len(sc._jsc.sc().statusTracker().getExecutorInfos()),
    "config": open(SparkFiles.get("app.json")).read(),
    "files": [__file__, helper.__file__, os.getcwd()],
    "path": sys.path,
    "ui": sc.uiWebUrl,
    "argument": sys.argv[1],
}))
"""
STUCK = """
import time
from pyspark.sql import SparkSession

sc = SparkSession.builder.getOrCreate().sparkContext
sc.parallelize(range(2), 2).foreach(lambda _: time.sleep(300))
"""

OPTIONS = """
from pyspark.sql import SparkSession

sc = SparkSession.builder.getOrCreate().sparkContext
print(*sc._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments())
"""


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """The files of a job, in a folder whose name has a space and an accent."""
    folder = tmp_path / "my lake é" / "packages"
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "stuck.py").write_text(STUCK)
    (folder / "app.json").write_text("configuration")
    with zipfile.ZipFile(folder / "job.zip", "w") as package:
        package.writestr("helper.py", "def double(i):\n    return 2 * i\n")
    return folder


def submit(base_uri: str, *options: str) -> dict[str, Any]:
    files = ["--py-files", f"{base_uri}/job.zip", "--files", f"{base_uri}/app.json"]
    yarn = ["--master", "yarn", "--deploy-mode", "client", "--conf", "spark.pyspark.python=/opt/env/bin/python"]
    return command("spark-submit", *yarn, *options, *files, f"{base_uri}/app.py", "s3://an argument/é")


def in_the_tree(path: str) -> bool:
    """Return whether a path lies in the source tree, outside of its environment."""
    return path.startswith(str(ROOT)) and "/.venv/" not in path


def result(emr: Emr, cluster: str) -> dict[str, Any]:
    emr.wait("WAITING", cluster)
    step = emr.steps(cluster)[0]
    text = emr.log(cluster, step["Id"])
    assert step["Status"]["State"] == "COMPLETED", text + emr.log(cluster, step["Id"], "stderr")
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    answer = next(line.removeprefix("RESULT ") for line in text.splitlines() if line.startswith("RESULT "))
    found: dict[str, Any] = json.loads(answer)
    assert found["group"] == [["0", "1"], ["0", "1"]]
    assert found["retried"] == [42]
    assert found["config"] == "configuration"
    assert found["argument"] == "s3://an argument/é"
    assert not any(in_the_tree(path) for path in found["files"])
    # Nightjar itself is installed in the environment of the steps: the uploaded code must come before it.
    uploaded = [place for place, path in enumerate(found["path"]) if f"/{step['Id']}/work" in path]
    installed = [place for place, path in enumerate(found["path"]) if in_the_tree(path)]
    assert max(uploaded) < min(installed, default=len(found["path"]))
    assert all(f"/{cluster}/steps/{step['Id']}/work" in path for path in found["files"])
    return found


def test_code_from_s3_has_the_slots_of_the_cluster(emr: Emr, upload: Path) -> None:
    for path in upload.iterdir():
        emr.s3.upload_file(str(path), "lake", f"packages/one/{path.name}")
    shutil.rmtree(upload)
    defaults = {"Classification": "spark-defaults", "Properties": {"spark.executor.instances": "3"}}
    cluster = emr.create(submit("s3://lake/packages/one", "--driver-memory", "700m"), Configurations=[defaults])
    until(lambda: descendants("-Xmx700m"))
    found = result(emr, cluster)
    assert found["master"] == "local[3,4]"
    assert found["ui"].startswith("http://localhost:")


@pytest.mark.long
def test_code_from_a_folder_with_a_space_and_an_accent(emr: Emr, upload: Path) -> None:
    cluster = emr.create(submit(upload.as_uri(), "--conf", "spark.ui.enabled=false"))
    found = result(emr, cluster)
    assert found["master"] == "local[2,4]"
    assert found["ui"] is None


@pytest.mark.long
def test_executors_can_be_processes(emr: Emr, upload: Path) -> None:
    tag = {"Key": "nightjar:executors", "Value": "processes"}
    sizes = ["--num-executors", "2", "--executor-cores", "1", "--executor-memory", "512m"]
    found = result(emr, emr.create(submit(upload.as_uri(), *sizes), Tags=[tag]))
    assert found["master"] == "local-cluster[2,1,512]"
    assert found["jvms"] == 3


@pytest.mark.long
@pytest.mark.parametrize(("chosen", "found"), [("", SMALL_JVM), ("-XX:+UseParallelGC", "-XX:+UseParallelGC")])
def test_a_step_has_the_options_of_the_server_or_its_own(
    emr: Emr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, found: str
) -> None:
    """A JVM that is told to use two collectors does not start."""
    monkeypatch.delenv("SPARK_SUBMIT_OPTS")
    (tmp_path / "options.py").write_text(OPTIONS)
    options = ("--conf", f"spark.driver.extraJavaOptions={chosen}") if chosen else ()
    cluster = emr.create(command("spark-submit", *options, (tmp_path / "options.py").as_uri()), alive=False)
    emr.wait("TERMINATED TERMINATED_WITH_ERRORS", cluster)
    step = emr.steps(cluster)[0]["Id"]
    printed = emr.log(cluster, step)
    assert found in printed, emr.log(cluster, step, "stderr")
    assert ("SharedArchiveFile" in printed) == (not chosen)


@pytest.mark.long
def test_cancelled_spark_step_leaves_no_process(emr: Emr, upload: Path) -> None:
    others = set(psutil.Process().children(recursive=True))
    cluster = emr.create(command("spark-submit", (upload / "stuck.py").as_uri()))
    step = emr.steps(cluster)[0]["Id"]
    until(lambda: len(descendants("pyspark.daemon")) >= 3)
    family = set(psutil.Process().children(recursive=True)) - others
    listening = [at.laddr.ip for p in family for at in p.net_connections("inet") if at.status == psutil.CONN_LISTEN]
    assert listening
    assert all("127.0.0.1" in ip for ip in listening)
    emr.api.cancel_steps(ClusterId=cluster, StepIds=[step])
    emr.wait("CANCELLED", cluster, step)
    assert not [process for process in family if process.is_running()]
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
