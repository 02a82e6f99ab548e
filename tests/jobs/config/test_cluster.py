"""The instance types that a cluster can have."""

import pytest

from jobs.config import resolve
from jobs.config.sections.cluster import ClusterConfig, architecture, has_cuda
from jobs.errors import InputError


@pytest.mark.parametrize(
    ("name", "arm", "gpu"),
    [
        ("m6i.xlarge", False, False),
        ("m6a.xlarge", False, False),
        ("m7g.2xlarge", True, False),
        ("c7gn.large", True, False),
        ("im4gn.large", True, False),
        ("a1.large", True, False),
        ("g5.xlarge", False, True),
        ("g4dn.xlarge", False, True),
        ("g4ad.xlarge", False, False),
        ("g5g.xlarge", True, True),
        ("p4d.24xlarge", False, True),
        ("u-6tb1.metal", False, False),
        ("m7i-flex.large", False, False),
    ],
)
def test_architecture_and_gpu_follow_from_the_name(name: str, arm: bool, gpu: bool) -> None:
    assert architecture(name) == ("aarch64" if arm else "x86_64")
    assert has_cuda(name) is gpu


def test_the_default_machines_fit_together() -> None:
    assert (ClusterConfig().architecture, ClusterConfig().torch_build) == ("x86_64", "cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cluster.core_instance_types": ["m7g.xlarge"]}, "mix ARM"),
        ({"cluster.core_instance_types": ["g5.xlarge", "m6i.xlarge"]}, "must all have GPUs"),
        ({"cluster.core_instance_types": ["g5.xlarge"], "cluster.task_instances": 1}, "must all have GPUs"),
        ({"cluster.core_instance_types": ["g5.xlarge"], "cluster.root_volume_gb": 20}, "at least 40"),
        ({"cluster.core_instance_types": []}, "cluster.core_instance_types"),
        ({"cluster.core_instance_types": ["big one"]}, "cluster.core_instance_types"),
        ({"cluster.wheelhouse": "s3://lakes/wheels"}, "cluster.wheelhouse"),
    ],
)
def test_a_cluster_that_cannot_work_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve("file:///text", "tiny", settings)
