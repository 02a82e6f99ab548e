"""The optimizers of `train.optimizer`, and the gradients of all parameters in one flat buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jobs.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Build the optimizer that `train.optimizer` names, over the parameters of `model`.

    Its state holds one dictionary of tensors for each parameter. Vectors (biases and norm gains) have no weight decay.
    """
    if config.optimizer == "muon":
        return _muon(model, config)
    if config.optimizer == "adamw":
        return _adamw(list(model.parameters()), config)
    if config.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        fused=True,
    )


class CombinedOptimizer(Optimizer):
    """Several optimizers of different parameters as one, with one list of parameter groups and one state."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # torch's is overloaded
        """Take a step with each optimizer."""
        assert closure is None
        start = 0
        for part in self._parts:
            stop = start + len(part.param_groups)
            part.state, part.param_groups = self.state, self.param_groups[start:stop]
            part.step()
            start = stop


def _muon(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Build Muon for the matrices between embeddings and output layer, and AdamW for all other parameters.

    Muon's updates are scaled to the size of AdamW's (arXiv:2502.16982), so both use the same learning rate.
    """
    excluded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    excluded.add(id(getattr(model, "output_weight", None)))
    hidden = [parameter for parameter in model.parameters() if parameter.dim() == 2 and id(parameter) not in excluded]
    hidden_ids = {id(parameter) for parameter in hidden}
    muon = torch.optim.Muon(
        [{"name": "hidden", "params": hidden}],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
        adjust_lr_fn="match_rms_adamw",
    )
    others = [parameter for parameter in model.parameters() if id(parameter) not in hidden_ids]
    return CombinedOptimizer([muon, _adamw(others, config)])


def _adamw(parameters: Sequence[nn.Parameter], config: TrainConfig) -> Optimizer:
    """Build AdamW (arXiv:1711.05101) with weight decay for matrices and none for vectors."""
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"name": "matrices", "params": matrices},
        {"name": "vectors", "params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


class FlatGradients:
    """The gradients of all parameters in one buffer, which one all-reduce sums over the workers.

    Each ``parameter.grad`` is a view of `values`, to which the backward pass adds. `extra` has slots for a few more
    numbers. `buffer` holds both. `norms` has the norm of each parameter's gradient before the last clipping.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], num_extra: int) -> None:
        parameters = list(parameters)
        size = sum(parameter.numel() for parameter in parameters)
        self.buffer = parameters[0].new_zeros(size + num_extra)
        self.values, self.extra = self.buffer[:size], self.buffer[size:]
        self.norms = self.values.new_zeros(len(parameters))
        self._of_parameters = []
        start = 0
        for parameter in parameters:
            parameter.grad = self.values[start : start + parameter.numel()].view_as(parameter)
            self._of_parameters.append(parameter.grad)
            start += parameter.numel()

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients down to `max_norm` if their norm is larger; return the norm before."""
        self.norms = torch.stack(torch._foreach_norm(self._of_parameters))
        norm: Tensor = torch.linalg.vector_norm(self.norms)
        if norm > max_norm:
            self.values *= max_norm / norm
        return norm

    def clear(self) -> None:
        """Set gradients and extra slots to zero."""
        self.buffer.zero_()
