"""The step train, as the DAG sends it, on a YARN of two hosts, whose executors and containers are killed."""

import os
import signal

import pytest

from infra.emr.yarn import hosts
from nightjar.errors import UserError
from tests.yarn.conftest import Yarn, host_of, last_application, processes
from tests.yarn.training import ONE_FITS, fill_lake, start

pytestmark = pytest.mark.yarn


@pytest.fixture(scope="module")
def cluster(yarn: Yarn):
    """A cluster of two nodes that no test breaks."""
    fill_lake()
    with yarn.cluster() as created:
        yield created


def test_training_continues_after_an_executor_was_killed(yarn, cluster):
    training = start(yarn, cluster, "executor-killed", **ONE_FITS)
    training.until_under_way()
    os.kill(next(pid for number in (1, 2) for pid in processes(number)), signal.SIGKILL)
    assert training.completed()["restarts"] == 1
    assert "was lost: Container" in yarn.wait(cluster, training.step)[1]


@pytest.mark.parametrize("strategy", ["allreduce", "diloco"])
def test_a_container_above_its_memory_is_named_with_the_setting(yarn, cluster, strategy):
    sizes = {"spark__executor_memory": "512m", "spark__executor_overhead": "128m"}
    error = start(yarn, cluster, f"memory-{strategy}", **sizes, train__strategy=strategy).failed()
    assert "Container killed by YARN for exceeding physical memory limits" in str(error)
    assert "raise spark.executor_overhead (Python's memory, now 128m)" in str(error)
    assert "used too much memory and were killed in 2 attempts" in str(error)
    # Before, 43 containers were started, one after the other.
    assert started_containers() <= 12


def started_containers() -> int:
    """Return how many containers of executors the last application had."""
    found = hosts.WORK.glob(f"node-*/logs/{last_application()}/container_*")
    return len({each.name for each in found}) - 1


def test_a_request_larger_than_a_node_is_the_users_mistake(yarn, cluster):
    error = start(yarn, cluster, "too-large", spark__executor_memory="20g", spark__executor_overhead="20g").failed()
    assert isinstance(error, UserError)
    assert "Required executor memory (20480 MB)" in str(error)
    assert "is above the max threshold (11712 MB)" in str(error)
    assert "lower spark.executor_memory and spark.executor_overhead" in str(error)


def test_the_shuffle_service_of_yesterday_is_named(yarn, cluster):
    error = start(yarn, cluster, "shuffle", ("spark.shuffle.service.enabled=true",)).failed()
    assert "Unable to register with external shuffle server" in str(error)
    assert "set spark.shuffle.service.enabled=false" in str(error)


def test_a_driver_in_cluster_mode_trains(yarn, cluster):
    training = start(yarn, cluster, "cluster-mode", spark__deploy_mode="cluster")
    training.until_under_way()
    assert host_of("ApplicationMaster", 1, 2) is not None
    assert host_of("ExecutorLauncher", 1, 2) is None
    assert training.completed()["restarts"] == 0


def test_a_driver_in_cluster_mode_tells_of_the_users_mistake(yarn, cluster):
    error = start(
        yarn, cluster, "cluster-mistake", ("spark.executor.instances=1",), spark__deploy_mode="cluster"
    ).failed()
    assert isinstance(error, UserError)
    assert "train.workers (2) needs 2 slots" in str(error)
