"""The memory that EMR gives to YARN, by EC2 instance type."""

from __future__ import annotations

from functools import cache
from typing import Any

from moto.utilities.utils import load_resource

_YARN_SHARE = 0.75
"""The approximate share of memory that EMR gives to YARN: 11,712 (m6i.xlarge) or 12,288 (m5.xlarge) of 16,384 MB."""


def yarn_megabytes(instance_type: str) -> int | None:
    """Return the MB of memory for YARN's containers on an instance of this type. Return None for an unknown type."""
    found = _types().get(instance_type)
    return None if found is None else int(float(found["MemoryGB"]) * 1024 * _YARN_SHARE)


@cache
def _types() -> dict[str, Any]:
    loaded: dict[str, Any] = load_resource("emr/resources/instance_types.json")
    return loaded
