"""Training continues when a spot node is lost: the real job, on a cluster whose executors are processes."""

from pathlib import Path

import pytest

from infra.emr.control import Control
from jobs.config import SparkConfig
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.training.checkpoint import complete_checkpoints
from nightjar.emr.requests import spark_submit
from nightjar.packaging.build import build
from tests.infra.emr.conftest import Emr, command, descendants
from tests.infra.emr.test_faults import FLEETS
from tests.support.handmade import make_datasets, make_run, train_tokenizer
from tests.support.waiting import until

pytestmark = [pytest.mark.spark, pytest.mark.long]

EXECUTOR = "CoarseGrainedExecutorBackend"
SETTINGS = {"train__workers": 2, "train__epochs": 12, "train__checkpoint_every": 10, "train__eval_every": 1000}


def test_training_survives_a_lost_spot_node(emr: Emr, tmp_path: Path) -> None:
    lake = Lake((tmp_path / "my läke").as_uri())
    make_datasets(lake, train_tokenizer())
    run, _ = make_run(lake, **SETTINGS)
    for name, data in build().files.items():
        store.write_bytes(f"{lake.uri}/package/{name}", data)
    submit = spark_submit("train", SparkConfig(executor_memory="512m"), f"{lake.uri}/package")
    tag = {"Key": "nightjar:executors", "Value": "processes"}
    fleets = [FLEETS[0], {**FLEETS[1], "TargetOnDemandCapacity": 1}, {**FLEETS[2], "TargetSpotCapacity": 1}]
    train = command(*submit, "train", "--config", run.config)
    cluster = emr.create(train, Tags=[tag], instances={"InstanceFleets": fleets})
    step = emr.steps(cluster)[0]["Id"]

    def is_under_way() -> bool:
        assert emr.status(cluster, step)["State"] not in ("FAILED", "COMPLETED"), emr.log(cluster, step, "stderr")
        return len(complete_checkpoints(run)) > 0

    until(is_under_way)
    assert len(descendants(EXECUTOR)) == 2
    control = Control(emr.endpoint_url)
    control.fault("spot-loss", roles=["TASK"])
    control.advance(121)
    emr.wait("COMPLETED FAILED", cluster, step)
    assert emr.status(cluster, step)["State"] == "COMPLETED", emr.log(cluster, step, "stderr")
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    stats = store.read_json(run.step_stats("train"))
    assert stats["restarts"] == 1
    assert stats["valid_loss"] < stats["unigram_loss"]
