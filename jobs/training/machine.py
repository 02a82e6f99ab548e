"""The kind of machine that trains. Machines of the same kind compute the same weights, bit for bit."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TypedDict

import torch

from jobs.engine.base import num_cores


class Machine(TypedDict):
    """The properties of a machine on which the results of floating-point arithmetic depend."""

    architecture: str
    """The architecture of the processor, such as ``x86_64``."""
    processor: str
    """The model name of the processor. Empty if the system does not provide it."""
    capability: str
    """The vector instructions that torch uses on the processor, such as ``AVX512``."""
    cores: int
    threads: int
    """Number of threads of a worker."""
    device: str
    """The name of the GPU, or ``cpu``."""


def this_machine(device: torch.device) -> Machine:
    """Return the kind of this machine, for a worker that trains on `device`."""
    return {
        "architecture": platform.machine(),
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
