"""The resources of a cluster's nodes by EC2 instance type: processors, memory for YARN's containers, and GPUs.

`YARN_MB` is copied from AWS's EMR Release Guide, page "Task configuration". It has the values of
``yarn.nodemanager.resource.memory-mb``, which is also the size of the largest container. The numbers of processors and
GPUs are those of EC2's DescribeInstanceTypes. For a type that is not in `YARN_MB`, the memory is estimated and marked
as unchecked. ``nightjar aws-smoke`` records the true memory of such a type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_FOUR_GIB_A_CORE = {
    "xlarge": 11_712,
    "2xlarge": 23_424,
    "4xlarge": 54_272,
    "8xlarge": 116_736,
    "12xlarge": 179_200,
    "16xlarge": 241_664,
    "24xlarge": 366_592,
    "32xlarge": 491_520,
    "48xlarge": 741_376,
}
_LARGER_12 = {**_FOUR_GIB_A_CORE, "12xlarge": 181_248}
YARN_MB = {
    **dict.fromkeys(("m6a", "m6idn", "m7a", "m7g", "m7gd", "m7i-flex", "g5"), _FOUR_GIB_A_CORE),
    **dict.fromkeys(("m6i", "m6g", "m6gd", "m6in", "m7i"), _LARGER_12),
    "g4dn": {
        "xlarge": 12_288,
        "2xlarge": 24_576,
        "4xlarge": 57_344,
        "8xlarge": 122_880,
        "12xlarge": 188_416,
        "16xlarge": 253_952,
    },
    "g6": {
        "xlarge": 11_520,
        "2xlarge": 23_040,
        "4xlarge": 53_248,
        "8xlarge": 115_712,
        "12xlarge": 177_152,
        "16xlarge": 239_616,
        "24xlarge": 364_544,
        "48xlarge": 737_280,
    },
}
"""MB of a node's memory for YARN's containers, by family and size of the instance type."""
_GPUS = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
"""Number of GPUs of an instance of the families g4dn, g5 and g6, by size. The other sizes have one GPU."""
_GIB_A_CORE = {"c": 2, "m": 4, "r": 8}
"""GiB of memory for each processor of an instance, by the first letter of its family's name."""
_TYPE = re.compile(r"(?P<family>[a-z0-9-]+)\.(?:(?P<large>large)|(?P<times>\d*)xlarge)")
GIB = 1024


@dataclass(frozen=True)
class Node:
    """The resources of a node that Spark may use."""

    cores: int
    yarn_mb: int
    """MB of memory for containers, which is also the size of the largest container."""
    gpus: int = 0
    is_checked: bool = True
    """True if `yarn_mb` is from `YARN_MB`, False if it is an estimate of `_yarn_mb`."""


@cache
def find_node(instance_type: str) -> Node | None:
    """Return the resources of a node of this type.

    Return None if the type is not in `YARN_MB` and its resources cannot be estimated from its family.
    """
    found = _TYPE.fullmatch(instance_type)
    if found is None:
        return None
    family, size = found["family"], instance_type.rpartition(".")[2]
    cores = 2 if found["large"] else 4 * int(found["times"] or 1)
    if recorded := YARN_MB.get(family, {}).get(size):
        return Node(cores, recorded, _GPUS.get(size, 1) if family.startswith("g") else 0)
    if family[0] not in _GIB_A_CORE or not family[1:2].isdigit():
        return None
    return Node(cores, _yarn_mb(cores * _GIB_A_CORE[family[0]] * GIB), is_checked=False)


def _yarn_mb(memory_mb: int) -> int:
    """Estimate how many MB of a node's memory are for containers.

    The estimate is at most the value in `YARN_MB` of any instance type with the same memory.
    """
    if memory_mb <= 8 * GIB:
        return memory_mb * 5 // 8
    if memory_mb <= 32 * GIB:
        return memory_mb * 45 // 64
    return memory_mb * 61 // 64 - 12 * GIB
