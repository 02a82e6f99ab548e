"""The machines that a run uses."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from jobs.config.sections.base import Section
from jobs.config.sections.instances import PATTERN, Architecture, architecture, has_cuda

InstanceTypes = Annotated[tuple[Annotated[str, Field(pattern=PATTERN)], ...], Field(min_length=1, max_length=30)]
MemorySize = Annotated[str, Field(pattern=r"^[1-9][0-9]*[kmgtKMGT]$"), AfterValidator(str.lower)]
_GENERAL = ("m6i.xlarge", "m6a.xlarge", "m7i.xlarge")


class SparkConfig(Section):
    """Sizes that the cluster gives to the job."""

    app_name: str = Field("nightjar", min_length=1)
    """Name of the Spark application."""
    master: str | None = None
    """Spark master, as spark://host:7077; none takes the one that spark-submit gives, else is local, with as many slots
    as executors x cores."""
    driver_memory: MemorySize = "2g"
    """Memory of the driver, as Spark writes it."""
    executor_memory: MemorySize = "2g"
    """Memory of an executor's JVM, as Spark writes it; on a cluster its Python processes may have as much again."""
    executors: int = Field(2, ge=1, le=1024)
    """Number of executors."""
    executor_cores: int = Field(1, ge=1, le=256)
    """Tasks that an executor runs at a time."""


class ClusterConfig(Section):
    """The EMR cluster that exists only while a run lasts."""

    release_label: str = "emr-spark-8.0.0"
    """EMR release; it decides the versions of Spark and Python."""
    primary_instance_types: InstanceTypes = _GENERAL
    """Instance types of the primary node, which runs the driver: the first that is to be had."""
    core_instance_types: InstanceTypes = _GENERAL
    """Instance types of the core nodes, which run the executors, on demand; with GPUs (g, p), torch has CUDA."""
    core_instances: int = Field(2, ge=1, le=1000)
    """Number of core nodes."""
    task_instance_types: InstanceTypes = _GENERAL
    """Instance types of the task nodes, which run executors too, on the spot market."""
    task_instances: int = Field(0, ge=0, le=1000)
    """Number of task nodes."""
    spot_timeout_minutes: int = Field(10, ge=5, le=1440)
    """Where the spot market gives no task node for so long, it is taken on demand."""
    root_volume_gb: int = Field(40, ge=15, le=100)
    """Root volume of each node, which holds the job's environment; with CUDA at least 40."""
    subnet_ids: tuple[str, ...] = ()
    """VPC subnets, of which EMR takes the one with room; none takes the account's default."""
    primary_security_group: str | None = None
    """Security group of the primary node; none lets EMR make its own."""
    core_security_group: str | None = None
    """Security group of all other nodes; none lets EMR make its own."""
    service_security_group: str | None = None
    """Security group by which EMR reaches nodes in a private subnet."""
    security_configuration: str | None = None
    """Name of the EMR security configuration: encryption at rest and in transit."""
    service_role: str = "EMR_DefaultRole"
    """Role of the EMR service."""
    instance_profile: str = "EMR_EC2_DefaultRole"
    """Instance profile of the nodes."""
    wheelhouse: str | None = Field(None, pattern=r"^(s3|file)://.*/[0-9a-f]{64}$")
    """Folder of wheels that the nodes install from (make package-wheelhouse); none takes them from PyPI."""
    idle_timeout_seconds: int = Field(900, ge=60, le=604_800)
    """EMR itself ends a cluster that is idle for so long."""
    time_to_live_hours: float = Field(12.0, gt=0)
    """The reaper ends a cluster that is older."""
    step_timeout_seconds: int = Field(6 * 3600, ge=60)
    """Longest duration of a step; then it is cancelled."""
    owner: str = "nightjar"
    """Tag that says who answers for the cluster."""

    @property
    def architecture(self) -> Architecture:
        """Of all nodes."""
        return architecture(self.primary_instance_types[0])

    @property
    def torch_build(self) -> str:
        """``cuda`` where the nodes that train have GPUs, else ``cpu``."""
        return "cuda" if has_cuda(self.core_instance_types[0]) else "cpu"

    @model_validator(mode="after")
    def _one_environment_fits_all(self) -> Self:
        training = self.core_instance_types + (self.task_instance_types if self.task_instances else ())
        everything = self.primary_instance_types + training
        if len({architecture(name) for name in everything}) > 1:
            raise ValueError(
                f"cluster.*_instance_types ({', '.join(everything)}) mix ARM (Graviton) and x86 processors:"
                " the job's environment is built for one of them"
            )
        if len({has_cuda(name) for name in training}) > 1:
            raise ValueError(
                f"cluster.core_instance_types and task_instance_types ({', '.join(training)}) must all have GPUs or"
                " none: the workers of a run train at one pace"
            )
        if self.torch_build == "cuda" and self.root_volume_gb < 40:
            raise ValueError(f"cluster.root_volume_gb ({self.root_volume_gb}) must be at least 40 for torch with CUDA")
        return self
