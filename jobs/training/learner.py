"""The learner: a model with its device, its number type, its gradients and its optimizer."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from jobs.config import TrainConfig
from jobs.errors import InputError
from jobs.model.language_model import LanguageModel
from jobs.training.optimizer import FlatGradients, build_optimizer

log = logging.getLogger(__name__)

NUM_EXTRA = 3
"""How many numbers the all-reduce loop sums together with the gradients: loss, seconds and stop flag."""


class Learner:
    """Computes gradients from windows and updates the weights.

    Weights, gradients and optimizer state are float32. Only the matrix products are computed in `dtype`.
    """

    def __init__(self, model: LanguageModel, config: TrainConfig, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else code that does not name a GPU would use memory of the first one
        self.model = model.to(device)
        self.device = device
        self.dtype = choose_dtype(config.dtype, device)
        self.optimizer = build_optimizer(model, config, self.dtype)
        self.gradients = FlatGradients(model.parameters(), NUM_EXTRA)
        self._max_gradient_norm = config.max_gradient_norm
        self._groups = _indices_by_group(model, self.optimizer)
        self._micro_batch_size = config.micro_batch_size
        if config.compile:
            compile_module(self.model.model, device)

    def backward(self, windows: Tensor, num_targets: int) -> float:
        """Compute this worker's part of the batch's mean loss, and return it. Add its gradient to `gradients`.

        `windows` (n, size + 1), int64, are this worker's part of the batch, which has `num_targets` targets. At most
        `train.micro_batch_size` windows are in memory at a time.
        """
        total = 0.0
        at_a_time = self._micro_batch_size or max(1, len(windows))
        with repeatable(self.device):
            for start in range(0, len(windows), at_a_time):
                piece = windows[start : start + at_a_time].to(self.device)
                loss = self.model.training_loss(piece, self.dtype) / num_targets
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                total += loss.item()
        return total

    def update(self, learning_rate: float) -> float:
        """Clip the gradients, take an optimizer step, and zero the gradients. Return their norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self.gradients.clip(self._max_gradient_norm)
        self.optimizer.step()
        self.gradients.clear()
        return norm.item()

    @property
    def dtype_name(self) -> str:
        """The type in which matrix products are computed, such as ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last update."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def gradient_norms(self) -> dict[str, dict[str, float]]:
        """For each parameter group, the mean and max norm of its parameters' gradients before the last clipping."""
        norms = np.array(self.gradients.norms.tolist())
        return {
            name: {"mean": float(norms[group].mean()), "max": float(norms[group].max())}
            for name, group in self._groups.items()
        }

    @property
    def gpu_bytes(self) -> int:
        """Memory in bytes that tensors occupy on the GPU; 0 without a GPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    @torch.no_grad()
    def score(self, windows: Tensor) -> tuple[float, int]:
        """Return the windows' summed loss, and the number of targets that the model ranks first."""
        return self.model.score(windows.to(self.device), self.dtype)


def _indices_by_group(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, list[int]]:
    """Return a dict from the name of each parameter group to the indices of its parameters.

    A group without a name is called ``all``.
    """
    indices = {parameter: index for index, parameter in enumerate(model.parameters())}
    return {
        group.get("name", "all"): [indices[parameter] for parameter in group["params"]]
        for group in optimizer.param_groups
        if group["params"]
    }


def choose_device(local_rank: int, wanted: str = "auto") -> torch.device:
    """Return a GPU, chosen by the worker's number on its machine, or the CPU.

    Args:
        local_rank: Number of the worker among the workers on the same machine.
        wanted: ``train.device``.

    Raises:
        InputError: if a GPU is wanted and this machine has none that torch can use.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    if wanted == "cuda":
        raise InputError(
            f"train.device=cuda, but torch {torch.__version__} (built for CUDA {torch.version.cuda}) sees no GPU on"
            f" {socket.gethostname()}; choose instances with GPUs whose driver is new enough for this build, or set"
            " train.device=cpu"
        )
    return torch.device("cpu")


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Make gradients repeatable inside the context: the same windows give the same gradients, also on a GPU.

    The usual attention kernels of a GPU add numbers in an arbitrary order.
    """
    if device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def compile_module(module: nn.Module, device: torch.device) -> None:
    """Compile `module` at its first call; raise an InputError if the compiler that torch calls is not installed."""
    variable, language, usual = (
        ("CXX", "C++", ["g++", "clang++"]) if device.type == "cpu" else ("CC", "C", ["gcc", "clang"])
    )
    compilers = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, compilers)):
        raise InputError(
            f"train.compile: no {language} compiler found ({' or '.join(compilers)}); install one or set"
            " train.compile=false"
        )
    module.compile()


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the type that `train.dtype` names. `auto` is bfloat16 if the hardware supports it, else float32.

    Log a warning, once in a process, if bfloat16 is set and the processor does not support it.
    """
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    has_that_of_arm = bool(torch.cpu.get_capabilities().get("bf16"))  # of unknown speed, so no warning
    if name == "bfloat16" and device.type == "cpu" and not _has_bfloat16(device) and not has_that_of_arm:
        _warn_of_bfloat16()
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def _warn_of_bfloat16() -> None:
    log.warning(
        "train.dtype=bfloat16: this processor has no bfloat16 arithmetic, so bfloat16 takes many times as long as"
        " float32; set train.dtype=auto or float32"
    )
