"""AdamW (arXiv:1711.05101), and all gradients in one flat buffer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from jobs.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the parameters of `model`; matrices are decayed, vectors (the norms' gains) are not."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"name": "matrices", "params": [parameter for parameter in parameters if parameter.dim() >= 2]},
        {
            "name": "vectors",
            "params": [parameter for parameter in parameters if parameter.dim() < 2],
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


class FlatGradients:
    """The gradients of all parameters, in one buffer that is summed over the workers in one call.

    Each ``parameter.grad`` is a view of `values`, which the backward pass adds to. `riders` are a few more numbers
    behind them, which travel in the same sum; `buffer` is both. `norms` are those of each parameter's gradient before
    they were last clipped.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], num_riders: int) -> None:
        parameters = list(parameters)
        size = sum(parameter.numel() for parameter in parameters)
        self.buffer = parameters[0].new_zeros(size + num_riders)
        self.values, self.riders = self.buffer[:size], self.buffer[size:]
        self.norms = self.values.new_zeros(len(parameters))
        self._of_parameters = []
        start = 0
        for parameter in parameters:
            parameter.grad = self.values[start : start + parameter.numel()].view_as(parameter)
            self._of_parameters.append(parameter.grad)
            start += parameter.numel()

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients down to `max_norm`; return their norm before that."""
        self.norms = torch.stack(torch._foreach_norm(self._of_parameters))
        norm: Tensor = torch.linalg.vector_norm(self.norms)
        if norm > max_norm:
            self.values *= max_norm / norm
        return norm

    def clear(self) -> None:
        """Set all to zero, for the next step."""
        self.buffer.zero_()
