"""What the name of an EC2 instance type tells: the architecture of its processor, and whether it has GPUs for CUDA.

``m6i.xlarge``: family `m`, generation 6, attributes `i`. A `g` among the attributes is Graviton, AWS's ARM processor.
"""

from __future__ import annotations

import re
from typing import Literal

Architecture = Literal["x86_64", "aarch64"]

PATTERN = r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$"
_FAMILY = re.compile(r"(?P<family>[a-z]+)(?P<generation>\d+)(?P<attributes>[a-z]*)")
_NO_CUDA = frozenset({"g4ad"})  # its GPUs are AMD's


def architecture(instance_type: str) -> Architecture:
    """The architecture that wheels for this instance type are built for."""
    found = _FAMILY.match(instance_type)
    arm = found is not None and (found["family"] == "a" or "g" in found["attributes"])
    return "aarch64" if arm else "x86_64"


def has_cuda(instance_type: str) -> bool:
    """Whether torch's CUDA build finds a GPU there: the families g and p."""
    found = _FAMILY.match(instance_type)
    return found is not None and found["family"] in ("g", "gr", "p") and found[0] not in _NO_CUDA
