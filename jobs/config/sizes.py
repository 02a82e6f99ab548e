"""Sizes of Spark's executors. Sizes that the settings do not give are computed from the nodes of the cluster.

On YARN, an executor is a container. Its memory is the sum of the JVM's memory and the overhead, which Python and torch
use. YARN places containers by memory alone (EMR's `DefaultResourceCalculator`). One node also holds the application
master.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.config import Config, SparkConfig
from jobs.config.instances import Node, find_node
from jobs.config.sections.cluster import LEAST_JVM_MB, megabytes
from jobs.errors import InputError

AM_MB = 512 + 384
"""MB of the application master in client mode: Spark's defaults for its memory and overhead. In cluster mode, the
application master is the driver (see `am_mb`)."""
JVM_MB = 2048
"""MB of an executor's JVM if no setting gives it. The data is in Python; the JVM only schedules."""
_KEYS = ("executors", "executor_cores", "executor_memory", "executor_overhead")


@dataclass(frozen=True)
class Nodes:
    """The nodes that run executors."""

    count: int
    smallest: Node
    """The smallest number of processors and the smallest memory among the allowed instance types."""
    types: tuple[str, ...]


def container_mb(memory: str, overhead: str) -> int:
    """Return the MB of a node's memory that an executor takes: its memory and its overhead."""
    return megabytes(memory) + megabytes(overhead)


def am_mb(spark: SparkConfig) -> int:
    """Return the MB of one node's memory that the application master takes.

    In cluster mode, the application master is the driver. Its Python process gets as much memory as its JVM.
    """
    return AM_MB if spark.deploy_mode == "client" else 2 * megabytes(spark.driver_memory)


def sized(config: Config) -> Config:
    """Return `config` with the sizes of executors filled in. By default, each node has one executor as large as fits.

    Raises:
        InputError: if the sizes depend on an instance type whose resources are not known, or if the application
            master leaves no room for an executor.
    """
    missing = [key for key in _KEYS if getattr(config.spark, key) is None]
    if not missing:
        return config
    nodes = _nodes(config)
    if nodes is None:
        unknown = ", ".join(name for name in config.cluster.training_types if find_node(name) is None)
        raise InputError(
            f"cluster.core_instance_types: the memory and processors of {unknown} are not known; set"
            f" {', '.join(f'spark.{key}' for key in missing)}, or choose a type in jobs/config/instances.py"
        )
    workers, given = config.train.workers, config.spark.executor_cores
    executors = config.spark.executors or max(nodes.count, math.ceil(workers / given) if given else 1)
    on_a_node = math.ceil(executors / nodes.count)
    cores = given or max(nodes.smallest.cores // on_a_node, math.ceil(workers / executors), 1)
    room = (nodes.smallest.yarn_mb - am_mb(config.spark)) // on_a_node
    if room < 1:
        raise InputError(_no_room(am_mb(config.spark), nodes))
    memory, overhead = config.spark.executor_memory, config.spark.executor_overhead
    if memory is None:
        memory = f"{max(LEAST_JVM_MB, min(JVM_MB, room // 3))}m"
    if overhead is None:
        overhead = f"{max(384, room - megabytes(memory))}m"
    values = {
        "executors": executors,
        "executor_cores": cores,
        "executor_memory": memory,
        "executor_overhead": overhead,
    }
    return config.model_copy(update={"spark": config.spark.model_copy(update=values)})


def check_placement(config: Config) -> None:
    """Check that the nodes of the cluster have room for all executors and for the application master.

    Raises:
        InputError: if the nodes lack room. The message says how much an executor takes, how much a node has, and what
            to change.
    """
    nodes = _nodes(config)
    if nodes is None:
        return
    spark = sized(config).spark
    wanted, memory, overhead = spark.executors or 1, spark.executor_memory or "", spark.executor_overhead or ""
    size, room = container_mb(memory, overhead), nodes.smallest.yarn_mb
    parts = f"{size:,} MB (spark.executor_memory {memory} and spark.executor_overhead {overhead})"
    has = f"a node ({' or '.join(nodes.types)}) has {room:,} MB for containers"
    master = am_mb(spark)
    if master > room:
        raise InputError(_no_room(master, nodes))
    if size > room:
        raise InputError(
            f"an executor takes {parts}, but {has}: lower these settings, or choose larger cluster.core_instance_types"
        )
    # The application master takes room on one node, which may then hold fewer executors.
    held = (nodes.count - 1) * (room // size) + (room - master) // size
    if held < wanted:
        raise InputError(
            f"spark.executors ({wanted}) do not fit: each takes {parts}, and {has}; one node gives {master:,} MB to the"
            f" application master, so that {nodes.count} nodes hold {held}: raise cluster.core_instances, or lower"
            " spark.executors, spark.executor_memory or spark.executor_overhead"
        )


def _no_room(master: int, nodes: Nodes) -> str:
    """Return the error message about a driver whose container takes `master` MB, more than a node has."""
    return (
        f"spark.deploy_mode=cluster: the driver takes {master:,} MB (twice spark.driver_memory), but a node"
        f" ({' or '.join(nodes.types)}) has {nodes.smallest.yarn_mb:,} MB for containers: lower spark.driver_memory, or"
        " choose larger cluster.core_instance_types"
    )


def check_gpus(config: Config) -> None:
    """Raise InputError if two tasks on a node with several GPUs could use the same GPU.

    This can happen if training runs in rounds (`average` and `diloco`), because the tasks of a node then choose their
    GPUs independently.
    """
    cluster, train = config.cluster, config.train
    nodes = {name: find_node(name) for name in cluster.training_types}
    several = [name for name, node in nodes.items() if node is None or node.gpus > 1]
    if cluster.torch_build == "cuda" and several and train.strategy != "allreduce":
        raise InputError(
            f"cluster.core_instance_types: {several[0]} has several GPUs, or an unknown number, and two tasks of"
            f" train.strategy={train.strategy} could use the same GPU; choose types with one GPU, or"
            " train.strategy=allreduce"
        )


def _nodes(config: Config) -> Nodes | None:
    """Return the nodes that run executors. Return None if the resources of an instance type are not known."""
    cluster = config.cluster
    found = [find_node(name) for name in cluster.training_types]
    nodes = [node for node in found if node is not None]
    if len(nodes) < len(found):
        return None
    smallest = Node(min(node.cores for node in nodes), min(node.yarn_mb for node in nodes))
    return Nodes(cluster.core_instances + cluster.task_instances, smallest, cluster.training_types)


def unchecked_types(config: Config) -> list[str]:
    """Return the instance types of the cluster for which `jobs.config.instances` only estimates the memory."""
    return [name for name in config.cluster.training_types if (node := find_node(name)) and not node.is_checked]
