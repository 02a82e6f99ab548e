"""The machines that a run uses: sizes for Spark, and the EMR cluster."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from jobs.config.releases import DEFAULT_RELEASE
from jobs.config.sections import Section

Architecture = Literal["x86_64", "aarch64"]
InstanceType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")]
InstanceTypes = Annotated[tuple[InstanceType, ...], Field(min_length=1, max_length=30)]
_UNIT_MB = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}
LEAST_JVM_MB = 512
"""Smallest memory of a JVM for Spark, in MB. Spark needs at least 450 MB, after the garbage collector has taken a part
of the JVM's memory."""


def megabytes(size: str) -> int:
    """Return a size such as 2g or 512m in MB."""
    return max(1, math.floor(int(size[:-1]) * _UNIT_MB[size[-1]]))


def _check_holds_spark(size: str) -> str:
    if megabytes(size) < LEAST_JVM_MB:
        raise ValueError(f"Spark needs at least {LEAST_JVM_MB}m")
    return size


MemorySize = Annotated[str, Field(pattern=r"^[1-9][0-9]*[kmgtKMGT]$"), AfterValidator(str.lower)]
JvmSize = Annotated[MemorySize, AfterValidator(_check_holds_spark)]
_GENERAL = ("m6i.xlarge", "m6a.xlarge", "m7i.xlarge")
# m6i.xlarge has the family m, the generation 6 and the attribute i. The attribute g is Graviton, an ARM processor.
_NAME = re.compile(r"(?P<family>[a-z]+)(?P<generation>\d+)(?P<attributes>[a-z]*)")
_NO_CUDA = frozenset({"g4ad"})  # with GPUs of AMD


class SparkConfig(Section):
    """The Spark application: where it runs, and how much of the machines it gets."""

    app_name: str = Field("nightjar", min_length=1)
    """Name of the Spark application, as Spark's web pages and YARN show it."""
    master: str | None = None
    """Spark master to connect to, such as spark://host:7077. A master that is given to spark-submit takes precedence.
    Without a value, Spark runs on this machine, with executors x executor_cores slots."""
    deploy_mode: Literal["client", "cluster"] = "client"
    """Where the driver of a step on EMR runs. client: on the primary node, as a process of the step, so that cancelling
    the step ends the driver. cluster: in a container on one of the other nodes, which must have room for the driver. If
    the step is cancelled, the driver then runs on until the cluster is terminated. In either mode, YARN starts no
    second driver: Airflow retries the step."""
    driver_memory: JvmSize = "2g"
    """Memory of the driver's JVM, such as 2g or 512m. Raise it if the driver ends with an OutOfMemoryError."""
    executor_memory: JvmSize | None = None
    """Memory of each executor's JVM, such as 2g or 512m. Without a value, 2g, or less on small nodes."""
    executor_overhead: MemorySize | None = None
    """Memory of each executor beside its JVM, such as 8g, for the Python processes, which train the model. YARN kills
    an executor that uses more than executor_memory and executor_overhead together. Without a value: on EMR, the rest of
    the node's memory; elsewhere, as much as spark.executor_memory."""
    executors: int | None = Field(None, ge=1, le=1024)
    """Number of executors. The cluster's nodes must have room for all of them. Without a value: on EMR, one for each
    node; elsewhere, as many as train.workers needs, but at least 2."""
    executor_cores: int | None = Field(None, ge=1, le=256)
    """Number of tasks that an executor runs at the same time. All executors together must run at least
    train.workers tasks. Without a value: on EMR, as many as the node has processors; elsewhere, as many as
    train.workers needs."""

    def filled(self, workers: int = 1) -> Self:
        """Return these settings with all sizes filled in, for a Spark cluster whose nodes are not known."""
        executors = self.executors or max(2, math.ceil(workers / (self.executor_cores or 1)))
        memory = self.executor_memory or "2g"
        values = {
            "executors": executors,
            "executor_cores": self.executor_cores or math.ceil(workers / executors),
            "executor_memory": memory,
            "executor_overhead": self.executor_overhead or memory,
        }
        return self.model_copy(update=values)


class ClusterConfig(Section):
    """The EMR cluster that exists only while a run lasts."""

    job_flow_id: str | None = Field(None, pattern=r"^j-[A-Za-z0-9]+$")
    """Id of an EMR cluster of your own, such as j-1ABCDEFGHIJKL, on which the steps run. No run terminates this
    cluster. Start it with the bootstrap action, the Spark settings and the tag nightjar:project that nightjar aws-plan
    shows. Its instance types must be those of this section, because the sizes of executors are computed from them.
    Without a value, each run creates a cluster and terminates it at the end."""
    release_label: str = DEFAULT_RELEASE
    """EMR release. It decides the versions of Spark, Hadoop and Java. emr-spark-8.0.0 has Spark 4.0.2, with which the
    code is tested, and is supported until 2028-05-20. emr-spark-8.1.0 has Spark 4.1.1, and is supported until
    2029-09-07."""
    primary_instance_types: InstanceTypes = _GENERAL
    """EC2 instance types of the primary node, which runs the driver, such as ["m6i.xlarge", "m6a.xlarge"]. EMR takes
    the first type that is available. If a cluster gets no capacity, or its bootstrap action fails, the run's next
    cluster leaves out the first type of each list."""
    core_instance_types: InstanceTypes = _GENERAL
    """EC2 instance types of the core nodes, which run executors and are bought on demand. Types with GPUs (families g
    and p) get the CUDA build of torch."""
    core_instances: int = Field(2, ge=1, le=1000)
    """Number of core nodes."""
    task_instance_types: InstanceTypes = _GENERAL
    """EC2 instance types of the task nodes. They run executors like the core nodes, but are bought on the cheaper spot
    market. AWS may take them away at any time; training then resumes."""
    task_instances: int = Field(0, ge=0, le=1000)
    """Number of task nodes; 0 for none."""
    spot_timeout_minutes: int = Field(10, ge=5, le=1440)
    """Minutes to wait for task nodes on the spot market, before they are bought on demand."""
    root_volume_gb: int = Field(40, ge=15, le=100)
    """Size of each node's disk in GB, for the job's environment and local copies of data. CUDA needs at least 40."""
    subnet_ids: tuple[str, ...] = ()
    """VPC subnets for the cluster, such as ["subnet-1", "subnet-2"]. EMR takes a subnet that has capacity. Without a
    value, the account's default subnet is used."""
    primary_security_group: str | None = None
    """Id of the primary node's security group, such as sg-1. Without a value, EMR creates one."""
    core_security_group: str | None = None
    """Id of the other nodes' security group, such as sg-2. Without a value, EMR creates one."""
    service_security_group: str | None = None
    """Id of the security group through which EMR reaches nodes in a private subnet. Public subnets need none."""
    security_configuration: str | None = None
    """Name of an EMR security configuration, which turns on encryption at rest and in transit."""
    service_role: str = "EMR_DefaultRole"
    """IAM role of the EMR service."""
    instance_profile: str = "EMR_EC2_DefaultRole"
    """IAM instance profile of the nodes. It must allow them to read and write the lake."""
    wheelhouse: str | None = Field(None, pattern=r"^(s3|file)://.*/[0-9a-f]{64}$")
    """Folder of wheels from which nodes without internet access install Python packages. The command nightjar
    aws-package wheelhouse makes such a folder. Without a value, the nodes install from PyPI."""
    idle_timeout_seconds: int = Field(900, ge=60, le=604_800)
    """Seconds without work after which EMR terminates the cluster, even if Airflow is down."""
    time_to_live_hours: float | None = Field(None, gt=0)
    """Age in hours at which the DAG reap_clusters terminates the cluster. The default is one hour plus
    step_timeout_seconds for each step of the run, and smaller values are raised to the default. So the cluster of a run
    whose steps keep to their limits is never terminated too early."""
    step_timeout_seconds: int = Field(6 * 3600, ge=60)
    """Longest duration of a step in seconds. A step that takes longer is cancelled, and its run fails."""
    owner: str = "nightjar"
    """Value of the cluster's tag nightjar:owner: the person or team that pays for it."""

    @property
    def architecture(self) -> Architecture:
        """Processor architecture of all nodes."""
        return architecture(self.primary_instance_types[0])

    @property
    def training_types(self) -> tuple[str, ...]:
        """Instance types of the nodes that run executors."""
        return self.core_instance_types + (self.task_instance_types if self.task_instances else ())

    @property
    def torch_build(self) -> str:
        """Build of torch: ``cuda`` if the nodes that train have GPUs, else ``cpu``."""
        return "cuda" if has_cuda(self.core_instance_types[0]) else "cpu"

    @model_validator(mode="after")
    def _one_environment_fits_all(self) -> Self:
        training = self.training_types
        everything = self.primary_instance_types + training
        if len({architecture(name) for name in everything}) > 1:
            raise ValueError(
                f"cluster.*_instance_types ({', '.join(everything)}) mix ARM (Graviton) and x86 processors, but the"
                " job's environment is built for one of them; choose types with the same processors"
            )
        if len({has_cuda(name) for name in training}) > 1:
            raise ValueError(
                f"cluster.core_instance_types and task_instance_types ({', '.join(training)}) must all have GPUs, or"
                " all have none: each worker waits for the slowest worker"
            )
        if self.torch_build == "cuda" and self.architecture == "aarch64":
            raise ValueError(
                f"cluster.core_instance_types ({', '.join(training)}) have ARM processors and GPUs, and no known build"
                " of torch supports both with the driver of the EMR release; choose the families g4dn, g5 or g6"
            )
        if self.torch_build == "cuda" and self.root_volume_gb < 40:
            raise ValueError(f"cluster.root_volume_gb ({self.root_volume_gb}) must be at least 40 for torch with CUDA")
        return self


def architecture(instance_type: str) -> Architecture:
    """Return the processor architecture of an instance type."""
    found = _NAME.match(instance_type)
    arm = found is not None and (found["family"] == "a" or "g" in found["attributes"])
    return "aarch64" if arm else "x86_64"


def has_cuda(instance_type: str) -> bool:
    """Return True if an instance type has a GPU for CUDA: families g, gr and p, but not g4ad (GPUs by AMD)."""
    found = _NAME.match(instance_type)
    return found is not None and found["family"] in ("g", "gr", "p") and found[0] not in _NO_CUDA
