"""The compatibility table: the EMR releases that Nightjar supports.

The table is taken from AWS's release notes of emr-spark-8.0.0 and emr-spark-8.1.0 (Release Guide, read in November
2026). All its values come from these notes.
"""

from __future__ import annotations

from typing import NamedTuple


class Release(NamedTuple):
    """The properties of an EMR release on which the job depends."""

    spark: str
    hadoop: str
    java: tuple[int, ...]
    """Versions of Java for Spark, the default first."""
    python: tuple[str, ...]
    """Versions of Python for PySpark, the default first."""
    cuda: str
    """CUDA version of the GPU driver on nodes with GPUs (component nvidia-cuda)."""
    supported_until: str
    emr_endpoint: bool
    """Whether clusters in private subnets need a VPC endpoint for the EMR service."""


RELEASES = {
    "emr-spark-8.0.0": Release(
        spark="4.0.2",
        hadoop="3.4.2",
        java=(17, 21),
        python=("3.11", "3.13"),
        cuda="12.5",
        supported_until="2028-05-20",
        emr_endpoint=True,
    ),
    "emr-spark-8.1.0": Release(
        spark="4.1.1",
        hadoop="3.4.2",
        java=(17, 21),
        python=("3.11", "3.13"),
        cuda="12.5",
        supported_until="2029-09-07",
        emr_endpoint=True,
    ),
}
"""The supported releases by label, the default first."""
DEFAULT_RELEASE = next(iter(RELEASES))
