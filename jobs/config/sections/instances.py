"""The processor architecture and the GPUs of an EC2 instance type, from its name.

``m6i.xlarge`` has the family `m`, the generation 6 and the attribute `i`. The attribute `g` is Graviton, an ARM
processor.
"""

from __future__ import annotations

import re
from typing import Literal

Architecture = Literal["x86_64", "aarch64"]

PATTERN = r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$"
_FAMILY = re.compile(r"(?P<family>[a-z]+)(?P<generation>\d+)(?P<attributes>[a-z]*)")
_NO_CUDA = frozenset({"g4ad"})  # with GPUs of AMD


def architecture(instance_type: str) -> Architecture:
    """Return the processor architecture of an instance type."""
    found = _FAMILY.match(instance_type)
    arm = found is not None and (found["family"] == "a" or "g" in found["attributes"])
    return "aarch64" if arm else "x86_64"


def has_cuda(instance_type: str) -> bool:
    """Return True if an instance type has a GPU for CUDA: the families g and p."""
    found = _FAMILY.match(instance_type)
    return found is not None and found["family"] in ("g", "gr", "p") and found[0] not in _NO_CUDA
