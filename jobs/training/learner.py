"""The model with what trains it: device, arithmetic, gradients and optimizer."""

from __future__ import annotations

import os
import shutil

import numpy as np
import torch
from torch import Tensor, nn

from jobs.config import TrainConfig
from jobs.errors import InputError
from jobs.model.language_model import LanguageModel
from jobs.training.optimizer import FlatGradients, build_optimizer

NUM_RIDERS = 3


class Learner:
    """Turns windows into gradients and gradients into better weights.

    Weights, gradients and optimizer are float32, whatever the arithmetic of the matrix products.
    """

    def __init__(self, model: LanguageModel, config: TrainConfig, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device
        self.dtype = choose_dtype(config.dtype, device)
        self.optimizer = build_optimizer(model, config)
        self.gradients = FlatGradients(model.parameters(), NUM_RIDERS)
        self._max_gradient_norm = config.max_gradient_norm
        self._groups = _indices_by_group(model, self.optimizer)
        self._micro_batch_size = config.micro_batch_size
        if config.compile:
            compile_module(self.model.model, device)

    def backward(self, windows: Tensor, num_targets: int) -> float:
        """Add the gradient of the windows' summed loss over `num_targets`, that is of their part of a batch's mean.

        At most `train.micro_batch_size` windows are in memory at a time.

        Args:
            windows: rows of inputs and one target more (n, size + 1), int64.
            num_targets: targets of the whole batch, of all workers.

        Returns:
            The part of the batch's mean loss, in the model's unit.
        """
        total = 0.0
        at_a_time = self._micro_batch_size or max(1, len(windows))
        for start in range(0, len(windows), at_a_time):
            piece = windows[start : start + at_a_time].to(self.device)
            loss = self.model.training_loss(piece, self.dtype) / num_targets
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += loss.item()
        return total

    def update(self, learning_rate: float) -> float:
        """Take an optimizer step with the gradients, clear them, and return their norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self.gradients.clip(self._max_gradient_norm)
        self.optimizer.step()
        self.gradients.clear()
        return norm.item()

    @property
    def learning_rate(self) -> float:
        """What the optimizer itself uses."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def gradient_norms(self) -> dict[str, dict[str, float]]:
        """Of each parameter group of the optimizer, mean and max of its gradients' norms before the last update."""
        norms = np.array(self.gradients.norms.tolist())
        return {
            name: {"mean": float(norms[group].mean()), "max": float(norms[group].max())}
            for name, group in self._groups.items()
        }

    @property
    def gpu_bytes(self) -> int:
        """Memory that tensors hold on the GPU; 0 without one."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    @torch.no_grad()
    def score(self, windows: Tensor) -> tuple[float, int]:
        """The windows' summed loss, and how many targets were what the model would say."""
        return self.model.score(windows.to(self.device), self.dtype)


def _indices_by_group(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, list[int]]:
    """Which of the model's parameters are in each group of the optimizer; one without a name holds them all."""
    places = {parameter: index for index, parameter in enumerate(model.parameters())}
    return {
        group.get("name", "all"): [places[parameter] for parameter in group["params"]]
        for group in optimizer.param_groups
        if group["params"]
    }


def choose_device(rank: int) -> torch.device:
    """A GPU where there is one, shared out by rank."""
    if torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


def compile_module(module: nn.Module, device: torch.device) -> None:
    """Let `module` be compiled when it is first called.

    Raises:
        InputError: if there is no compiler for it.
    """
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise InputError(
            f"train.compile: there is no C++ compiler here ({' or '.join(compilers)}); install one,"
            " or set train.compile=false"
        )
    module.compile()


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic that `train.dtype` names; `auto` takes bfloat16 only where the hardware computes with it."""
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
