"""The step train on hosts that are lost, cut off or late. Each test has a cluster of its own."""

import pytest

from infra.emr.yarn import hosts
from tests.support.waiting import until
from tests.yarn.conftest import EXECUTOR, MASTER, Yarn, host_of, nodes, processes
from tests.yarn.training import ONE_FITS, fill_lake, start

pytestmark = pytest.mark.yarn


@pytest.fixture(scope="module", autouse=True)
def lake(yarn: Yarn) -> None:
    fill_lake()


def test_a_lost_host_is_replaced_while_the_training_waits(yarn):
    with yarn.cluster() as cluster:
        training = start(yarn, cluster, "host-killed", **ONE_FITS)
        training.until_under_way()
        lost = 3 - host_of(MASTER, 1, 2)
        assert processes(lost)
        hosts.kill(lost)
        training.until_said("a worker was lost; resuming")
        yarn.resize(cluster, 3)
        assert training.completed()["restarts"] == 1
        assert nodes()["node-3"] == "RUNNING"


def test_training_survives_the_host_of_the_application_master(yarn):
    with yarn.cluster() as cluster:
        training = start(yarn, cluster, "master-lost")
        training.until_under_way()
        lost = host_of(MASTER, 1, 2)
        hosts.kill(lost)
        training.completed()
        assert nodes()[f"node-{lost}"] == "LOST"


def test_training_survives_a_pulled_cable(yarn):
    with yarn.cluster() as cluster:
        training = start(yarn, cluster, "cable", **ONE_FITS)
        training.until_under_way()
        cut = 3 - host_of(MASTER, 1, 2)
        hosts.cut(cut)
        until(lambda: nodes()[f"node-{cut}"] == "LOST", 60, "YARN gives the host up")
        training.until_said("a worker was lost; resuming")
        hosts.mend(cut)
        assert training.completed()["restarts"] >= 1
        assert nodes()[f"node-{cut}"] == "RUNNING"


def test_a_node_that_is_three_minutes_late_is_waited_for(yarn):
    with yarn.cluster() as cluster:
        hosts.cut(2)
        until(lambda: nodes()["node-2"] == "LOST", 60, "YARN gives the host up")
        training = start(yarn, cluster, "late", **ONE_FITS, train__epochs=5)
        missing = "Spark on yarn has 1 of 2 slots and 1 of 2 executors; waited {} of at most 20 minutes"
        for minutes, seconds in ((1, 200), (2, 70), (3, 70)):
            training.until_said(missing.format(minutes), seconds)
        hosts.mend(2)
        assert training.completed()["restarts"] == 0


def test_four_hosts_train_without_a_region(yarn):
    with yarn.cluster(workers=4, region=None) as cluster:
        four = {**ONE_FITS, "train__workers": 4, "spark__executors": 4, "cluster__core_instances": 4}
        training = start(yarn, cluster, "four", **four, train__epochs=20)
        training.until_under_way()
        assert [number for number in range(1, 5) if processes(number, EXECUTOR)] == [1, 2, 3, 4]
        assert training.completed()["workers"] == 4
