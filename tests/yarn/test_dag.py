"""The whole DAG on a real YARN, by each strategy, and in cluster mode."""

import shlex

import pytest

from infra.airflow.environment import environment
from infra.aws.plan import plan
from jobs.lake.store import ENVIRONMENT
from tests.support.real_job import CONF, assert_complete, poems
from tests.yarn.conftest import BUCKET, LAKE, Yarn

pytestmark = pytest.mark.yarn

STEPS = ("tokenize", "windows", "train", "generate")


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("allreduce", {"train.strategy": "allreduce"}),
        ("rounds", {"train.strategy": "diloco"}),
        ("cluster", {"spark.deploy_mode": "cluster"}),
    ],
)
def test_the_dag_runs_on_yarn(yarn: Yarn, name, chosen, monkeypatch):
    corpus, settings = f"s3://{BUCKET}/corpora/{name}.txt", {**CONF, **chosen}
    ENVIRONMENT.write_bytes(corpus, poems() + name.encode())  # another text, or the datasets would be found
    code, log, run, stats_dir = yarn.dag(name, {**settings, "corpus": corpus})
    assert code == 0, log[-6000:]
    assert_complete(run, yarn.store, STEPS, stats_dir)
    assert commands(yarn, run.run_id) == planned(yarn, run.run_id, corpus, settings, monkeypatch)


def commands(yarn: Yarn, run_id: str) -> dict[str, str]:
    """Return the commands of a run's steps by step, as the controller's log has them."""
    (cluster,) = (each["Id"] for each in yarn.api.list_clusters()["Clusters"] if each["Name"].endswith(f"/{run_id}"))
    found = {}
    for step in yarn.api.list_steps(ClusterId=cluster)["Steps"]:
        lines = yarn.log(cluster, step["Id"], "controller", LAKE.logs).splitlines()
        found[step["Name"]] = next(line.partition(" INFO run ")[2] for line in lines if " INFO run " in line)
    return {step: line.replace(cluster, "j-PLANNED") for step, line in found.items()}


def planned(yarn: Yarn, run_id: str, corpus: str, settings: dict, monkeypatch) -> dict[str, str]:
    """Return the commands that ``aws-plan`` prints for the same run."""
    own = environment(yarn.home / "airflow", LAKE.uri, yarn.endpoint)
    for key in ("NIGHTJAR_SPARK_EXECUTORS", "NIGHTJAR_SPARK_EXECUTOR_CORES"):
        monkeypatch.setenv(key, own[key])
    preset = settings["preset"]
    chosen = {key: value for key, value in settings.items() if key != "preset"}
    found = [each for name, each in plan(LAKE.uri, corpus, preset, chosen) if name == "AddJobFlowSteps"]
    args = {request["Steps"][0]["Name"]: request["Steps"][0]["HadoopJarStep"]["Args"] for request in found}
    return {step: shlex.join(words).replace("/planned/", f"/{run_id}/") for step, words in args.items()}
