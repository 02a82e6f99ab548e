"""Steps of any Spark application on a real YARN of two hosts: what they see, what they may do, how they end."""

import json
import shlex
import zipfile
from io import BytesIO

import pytest

from infra.emr.yarn import hosts
from infra.emr.yarn.cluster import rest
from tests.support.waiting import until
from tests.yarn.conftest import BUCKET, DRIVER, REGION, Yarn, last_application, nodes, processes

pytestmark = pytest.mark.yarn

APP = """
import json, os, socket, sys, urllib.error, urllib.request
import helper
from pyspark.sql import SparkSession

sc = SparkSession.builder.getOrCreate().sparkContext

def see(_):
    import time
    time.sleep(1)
    yield {
        "host": socket.gethostname(),
        "uid": os.getuid(),
        "doubled": helper.double(21),
        "region": os.environ.get("AWS_REGION"),
        "python": sys.executable,
    }

def emr():
    request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], b"{}",
        {"X-Amz-Target": "ElasticMapReduce.ListClusters", "Content-Type": "application/x-amz-json-1.1"})
    try:
        return urllib.request.urlopen(request, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code

seen = sc.parallelize(range(2), 2).barrier().mapPartitions(see).collect()
print("RESULT", json.dumps({
    "master": sc.master, "seen": seen, "uid": os.getuid(), "argument": sys.argv[1], "emr": emr(),
    "region": os.environ.get("AWS_REGION"), "host": socket.gethostname(),
}))
"""
STUCK = """
import time
from pyspark.sql import SparkSession

sc = SparkSession.builder.getOrCreate().sparkContext
sc.parallelize(range(2), 2).foreach(lambda _: time.sleep(600))
"""
SIZES = ("--executor-memory", "1g", "--conf", "spark.executor.memoryOverhead=9g", "--num-executors", "2")
"""One executor fits to a node."""
NOBODY = 65534


@pytest.fixture(scope="module")
def cluster(yarn: Yarn):
    """A cluster of two nodes, whose S3 has the applications."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as package:
        package.writestr("helper.py", "def double(i):\n    return 2 * i\n")
    for name, content in {"app.py": APP.encode(), "stuck.py": STUCK.encode(), "job.zip": packed.getvalue()}.items():
        yarn.s3.put_object(Bucket=BUCKET, Key=f"code/{name}", Body=content)
    with yarn.cluster() as created:
        yield created
    assert not hosts.WORK.joinpath("hosts").exists()
    assert hosts.namespaces() == []


def command(app: str, *options: str, mode: str = "client") -> list[str]:
    files = ["--py-files", f"s3://{BUCKET}/code/job.zip", f"s3://{BUCKET}/code/{app}.py", "s3://an argument/é"]
    return ["spark-submit", "--master", "yarn", "--deploy-mode", mode, *SIZES, *options, *files]


def result(text: str):
    return json.loads(next(line for line in text.splitlines() if line.startswith("RESULT ")).removeprefix("RESULT "))


def test_a_step_runs_as_it_was_sent_on_two_hosts_without_rights(yarn, cluster):
    sent = command("app")
    state, logs = yarn.wait(cluster, yarn.submit(cluster, *sent))
    assert state == "COMPLETED", logs[-6000:]
    found = result(logs)
    assert (found["master"], found["argument"], found["host"]) == ("yarn", "s3://an argument/é", "node-0")
    assert sorted(each["host"] for each in found["seen"]) == ["node-1", "node-2"]
    assert {found["uid"], *(each["uid"] for each in found["seen"])} == {NOBODY}
    assert {found["region"], *(each["region"] for each in found["seen"])} == {REGION}
    assert {each["python"] for each in found["seen"]} == {"/opt/nightjar/env/bin/python"}
    assert all(each["doubled"] == 42 for each in found["seen"])
    # What runs on a host has fewer rights than the server: it may not run commands by a step of its own.
    assert found["emr"] == 403
    assert f"run {shlex.join(sent)}\n" in logs


def test_cancel_reaches_the_driver_and_its_containers(yarn, cluster):
    step = yarn.submit(cluster, *command("stuck"))
    until(lambda: processes(1) and processes(2), 120, "both executors")
    yarn.api.cancel_steps(ClusterId=cluster, StepIds=[step], StepCancellationOption="TERMINATE_PROCESS")
    state, _ = yarn.wait(cluster, step, 60)
    assert state == "CANCELLED"
    assert not processes(0, DRIVER)
    until(lambda: not processes(1) and not processes(2), 30, "the containers end")
    ended = ("FINISHED", "FAILED", "KILLED")
    until(lambda: rest(f"apps/{last_application()}/state")["state"] in ended, 60, "YARN knows of the end")


def test_a_driver_in_cluster_mode_runs_in_a_container(yarn, cluster):
    state, logs = yarn.wait(cluster, yarn.submit(cluster, *command("app", mode="cluster")))
    assert state == "COMPLETED", logs[-6000:]
    assert "RESULT" not in logs  # it is in the log of the container
    assert rest(f"apps/{last_application()}/state")["state"] == "FINISHED"


def test_a_new_node_joins_and_a_lost_one_leaves(yarn, cluster):
    yarn.resize(cluster, 3)
    until(lambda: nodes().get("node-3") == "RUNNING", 60, "a third node")
    yarn.resize(cluster, 2)
    until(lambda: nodes().get("node-3") != "RUNNING", 60, "two nodes")
