"""Sizes of executors: computed from the nodes, and refused where the nodes cannot hold them."""

import pytest

from jobs.config import resolve
from jobs.config.instances import GIB, YARN_MB, _yarn_mb, find_node
from jobs.config.sizes import AM_MB, check_gpus, check_placement, container_mb, sized
from jobs.errors import InputError


def config(**settings):
    return resolve("s3://lakes/text", "tiny", {key.replace("__", "."): value for key, value in settings.items()})


def sizes(**settings):
    spark = sized(config(**settings)).spark
    return spark.executors, spark.executor_cores, spark.executor_memory, spark.executor_overhead


def test_an_executor_takes_a_node_but_for_the_application_master():
    assert sizes() == (2, 4, "2048m", "8768m")
    assert container_mb("2048m", "8768m") + AM_MB == find_node("m6i.xlarge").yarn_mb == 11_712
    assert sizes(cluster__core_instances=5, cluster__core_instance_types=["m6i.4xlarge"]) == (
        *(5, 16, "2048m"),
        f"{54_272 - 896 - 2048}m",
    )


def test_the_smallest_of_the_types_and_spot_nodes_count():
    several = {"cluster__core_instance_types": ["m6i.2xlarge", "m6i.xlarge"], "cluster__task_instances": 3}
    assert sizes(**several, cluster__task_instance_types=["m7i.4xlarge"]) == (5, 4, "2048m", "8768m")


def test_what_a_person_gave_stays_and_the_rest_fits():
    assert sizes(spark__executors=4) == (4, 2, "1802m", "3606m")
    assert sizes(spark__executors=4, spark__executor_cores=1)[1] == 1
    assert sizes(spark__executor_memory="4g") == (2, 4, "4g", f"{11_712 - 896 - 4096}m")
    assert sizes(spark__executor_overhead="6g") == (2, 4, "2048m", "6g")
    assert sizes(spark__executors=20)[2] == "512m"


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 9, 31])
@pytest.mark.parametrize("given", [{}, {"spark__executors": 3}, {"spark__executor_cores": 2}])
def test_there_is_a_slot_for_each_worker_and_a_place_for_each_executor(workers, given):
    chosen = config(train__workers=workers, **given)
    executors, cores, _, _ = sizes(train__workers=workers, **given)
    assert executors * cores >= workers
    if executors <= 6:
        check_placement(sized(chosen))


def test_the_environment_and_a_file_reach_the_sizes(monkeypatch):
    from jobs.config import environment_settings

    monkeypatch.setenv("NIGHTJAR_SPARK_EXECUTOR_OVERHEAD", "3g")
    monkeypatch.setenv("NIGHTJAR_SPARK_EXECUTORS", "2")
    spark = sized(resolve("s3://lakes/text", "tiny", environment_settings())).spark
    assert (spark.executors, spark.executor_overhead) == (2, "3g")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"spark__executor_memory": "20g", "spark__executor_overhead": "20g"},
            r"an executor takes 40,960 MB .*spark\.executor_memory 20g.* but a node \(m6i.xlarge .* has 11,712 MB",
        ),
        (
            {"spark__executors": 6, "spark__executor_memory": "2g", "spark__executor_overhead": "2g"},
            r"spark\.executors \(6\) do not fit: each takes 4,096 MB .* 2 nodes hold 4: raise cluster\.core_instances",
        ),
        (  # two fit on a node, but not beside the application master
            {"spark__executors": 4, "spark__executor_memory": "2g", "spark__executor_overhead": "3800m"},
            r"gives 896 MB to the application master, so that 2 nodes hold 3",
        ),
    ],
)
def test_what_no_node_can_hold_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        check_placement(sized(config(**settings)))


def test_an_unknown_type_needs_all_sizes():
    unknown = {"cluster__core_instance_types": ["x2idn.16xlarge"]}
    with pytest.raises(
        InputError, match=r"of x2idn\.16xlarge are not known; set spark\.executors, spark\.executor_cores"
    ):
        sized(config(**unknown))
    given = {"spark__executors": 2, "spark__executor_cores": 8, "spark__executor_memory": "9g"}
    chosen = config(**unknown, **given, spark__executor_overhead="9g")
    assert sized(chosen) == chosen
    check_placement(chosen)


@pytest.mark.parametrize(("name", "cores"), [("c7i.large", 2), ("r6i.2xlarge", 8), ("m5.xlarge", 4)])
def test_a_type_that_is_not_recorded_gets_a_size_by_rule(name, cores):
    node = find_node(name)
    assert node.cores == cores
    assert not node.is_checked
    assert find_node("m6i.large").yarn_mb == 8 * GIB * 5 // 8
    assert find_node("t3.xlarge") is None


def test_the_rule_gives_no_more_than_any_record():
    for sizes_of in YARN_MB.values():
        for size, recorded in sizes_of.items():
            memory = 16 * GIB * int(size.removesuffix("xlarge") or 1)
            assert _yarn_mb(memory) <= recorded < memory


def test_gpus_are_counted():
    assert [find_node(f"g5.{size}").gpus for size in ("xlarge", "12xlarge", "16xlarge", "48xlarge")] == [1, 4, 1, 8]
    assert find_node("m6i.12xlarge").gpus == 0
    rounds = {"train__strategy": "diloco", "cluster__core_instance_types": ["g5.12xlarge"]}
    with pytest.raises(InputError, match=r"g5\.12xlarge has several GPUs, .*train\.strategy=allreduce"):
        check_gpus(config(**rounds))
    check_gpus(config(**rounds | {"train__strategy": "allreduce"}))
    check_gpus(config(**rounds | {"cluster__core_instance_types": ["g5.xlarge"]}))


def test_arm_processors_with_gpus_are_refused():
    arm = {"cluster__core_instance_types": ["g5g.xlarge"], "cluster__primary_instance_types": ["m7g.xlarge"]}
    with pytest.raises(InputError, match="ARM processors and GPUs"):
        config(**arm)


def test_sizes_for_a_spark_whose_nodes_are_not_known():
    spark = config().spark.filled(workers=3)
    assert (spark.executors, spark.executor_cores, spark.executor_memory, spark.executor_overhead) == (3, 1, "2g", "2g")
    assert config(spark__executors=2).spark.filled(workers=3).executor_cores == 2
    assert config(spark__executor_cores=4, spark__executor_memory="1g").spark.filled(3).executor_overhead == "1g"


def test_the_driver_in_cluster_mode_takes_its_place_on_a_node():
    in_cluster = {"spark__deploy_mode": "cluster", "spark__driver_memory": "2g"}
    assert sizes(**in_cluster) == (2, 4, "2048m", f"{11_712 - 2 * 2048 - 2048}m")
    check_placement(sized(config(**in_cluster)))
    full = {"spark__executors": 2, "spark__executor_memory": "2g", "spark__executor_overhead": "8768m"}
    check_placement(sized(config(**full)))
    with pytest.raises(InputError, match=r"one node gives 4,096 MB to the application master, so that 2 nodes hold 1"):
        check_placement(sized(config(**full, **in_cluster)))
    with pytest.raises(InputError, match=r"the driver takes 16,384 MB \(twice spark\.driver_memory\), but a node"):
        sized(config(spark__deploy_mode="cluster", spark__driver_memory="8g"))
