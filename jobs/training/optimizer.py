"""The optimizers of `train.optimizer`, and the gradients of all parameters in one flat buffer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jobs.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig, dtype: torch.dtype = torch.float32) -> Optimizer:
    """Build the optimizer that `train.optimizer` names, over the parameters of `model`.

    The optimizer's state has one dictionary of tensors for each parameter. Vectors (biases and norm gains) have no
    weight decay. `dtype` is the type in which the optimizer computes matrix products.
    """
    if config.optimizer == "muon":
        return _muon(model, config, dtype)
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


_GPU_BATCH = 2**24
"""Maximum number of elements of the matrices that Muon orthogonalizes in one batch on a GPU.

A single small matrix would leave most of the GPU idle.
"""


class Muon(Optimizer):
    """The optimizer Muon, for parameters that are matrices. Its updates are as large as AdamW's (arXiv:2502.16982).

    `torch.optim.Muon` makes the same updates, but always computes in bfloat16. On processors without bfloat16
    arithmetic, such as those of many laptops, that takes 20 times as long as float32.

    Args:
        groups: The parameters, as `torch.optim` takes them.
        dtype: The type in which matrix products are computed.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        momentum: Decay factor of the moving mean of the gradients.
        nesterov: Whether an update looks ahead by one more step of the momentum.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        dtype: torch.dtype,
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        nesterov: bool,
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # torch's is overloaded
        """Take a step with the gradients of all parameters."""
        assert closure is None
        for group in self.param_groups:
            on_gpu = any(parameter.is_cuda for parameter in group["params"])
            for batch in batches(group["params"], _GPU_BATCH if on_gpu else 0):
                directions = torch.stack([self._direction(parameter, group) for parameter in batch])
                length = 0.2 * math.sqrt(max(batch[0].shape))
                for parameter, update in zip(batch, orthogonalize(directions.to(self._dtype)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * length)

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Add the gradient to the momentum, and return the update's direction, which is not orthogonalized yet."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum


def batches(matrices: Sequence[Tensor], most_elements: int) -> Iterator[Sequence[Tensor]]:
    """Yield all matrices in batches of equal shape. A batch has one matrix, or at most `most_elements` elements."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(matrix.shape, []).append(matrix)
    for shape, alike in by_shape.items():
        count = max(1, most_elements // shape.numel())
        for start in range(0, len(alike), count):
            yield alike[start : start + count]


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices with the singular vectors of `matrices`, and singular values between about 0.7 and 1.2.

    This computes five Newton-Schulz iterations with a polynomial of degree five. The polynomial's slope at zero is so
    large that small singular values grow fast (kellerjordan.github.io/posts/muon).

    Args:
        matrices: The shape is [batch, rows, columns]. They are not changed.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    result = matrices.mT if is_tall else matrices
    result = result / result.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # all singular values are at most 1
    for _ in range(5):
        gram = result @ result.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        result = torch.baddbmm(result, polynomial, result, beta=3.4445)
    return result.mT if is_tall else result


class CombinedOptimizer(Optimizer):
    """Several optimizers, each with its own parameters, as one: with one list of parameter groups and one state."""

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


def _muon(model: nn.Module, config: TrainConfig, dtype: torch.dtype) -> Optimizer:
    """Build Muon for the matrices between embeddings and output layer, and AdamW for all other parameters."""
    excluded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    excluded.add(id(getattr(model, "output_weight", None)))
    hidden = [parameter for parameter in model.parameters() if parameter.dim() == 2 and id(parameter) not in excluded]
    hidden_ids = {id(parameter) for parameter in hidden}
    muon = Muon(
        [{"name": "hidden", "params": hidden}],
        dtype,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
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
    numbers. `buffer` is `values` followed by `extra`. `norms` has the norm of each parameter's gradient before the last
    clipping.
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
        """Scale the gradients down to `max_norm` if their norm is larger. Return the norm before scaling."""
        self.norms = torch.stack(torch._foreach_norm(self._of_parameters))
        norm: Tensor = torch.linalg.vector_norm(self.norms)
        if norm > max_norm:
            self.values *= max_norm / norm
        return norm

    def clear(self) -> None:
        """Set gradients and extra slots to zero."""
        self.buffer.zero_()
