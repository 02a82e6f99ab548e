"""The machines that a run uses."""

from __future__ import annotations

from pydantic import Field

from jobs.sections.base import Section


class SparkConfig(Section):
    """Sizes that the cluster gives to the job."""

    app_name: str = Field("nightjar", min_length=1)
    """Name of the Spark application."""
    driver_memory: str = Field("2g", pattern=r"^[1-9][0-9]*[kmgt]$")
    """Memory of the driver, as Spark writes it."""
    executor_memory: str = Field("2g", pattern=r"^[1-9][0-9]*[kmgt]$")
    """Memory of an executor, as Spark writes it."""
    executors: int = Field(2, ge=1, le=1024)
    """Number of executors."""
    executor_cores: int = Field(1, ge=1, le=256)
    """Tasks that an executor runs at a time."""


class ClusterConfig(Section):
    """The EMR cluster that exists only while a run lasts."""

    release_label: str = "emr-spark-8.0.0"
    """EMR release; it decides the versions of Spark and Python."""
    primary_instance_type: str = "m6i.xlarge"
    """Instance type of the primary node, which runs the driver."""
    core_instance_type: str = "m6i.xlarge"
    """Instance type of the core nodes, which run the executors."""
    core_instances: int = Field(2, ge=1, le=1000)
    """Number of core nodes."""
    subnet_id: str | None = None
    """VPC subnet of the cluster; none takes the account's default."""
    service_role: str = "EMR_DefaultRole"
    """Role of the EMR service."""
    instance_profile: str = "EMR_EC2_DefaultRole"
    """Instance profile of the nodes."""
    idle_timeout_seconds: int = Field(900, ge=60, le=604_800)
    """EMR itself ends a cluster that is idle for so long."""
    time_to_live_hours: float = Field(12.0, gt=0)
    """The reaper ends a cluster that is older."""
    step_timeout_seconds: int = Field(6 * 3600, ge=60)
    """Longest duration of a step; then it is cancelled."""
    owner: str = "nightjar"
    """Tag that says who answers for the cluster."""
