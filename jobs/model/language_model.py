"""The interface of all trainable models: their losses, token embeddings, and number of parameters.

Shapes in comments: n windows, N targets, D features, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from jobs.model.loss import linear_cross_entropy, loss_and_hits, loss_of_each

MAX_POSITIONS, MAX_TOKENS = 1 << 20, 1 << 24
LossUnit = Literal["nats", "squared distance"]


@dataclass(frozen=True)
class DataShape:
    """The properties of a dataset that a model depends on."""

    vocab_size: int
    num_positions: int
    """Number of input tokens of a window."""
    end_of_text: int
    """The id of the end-of-text token, which follows each document."""

    def __post_init__(self) -> None:
        checked_int("vocab_size", self.vocab_size, 1, MAX_TOKENS)
        checked_int("num_positions", self.num_positions, 1, MAX_POSITIONS)
        checked_int("end_of_text", self.end_of_text, 0, self.vocab_size - 1)


def checked_int(name: str, value: object, least: int, most: int) -> int:
    """Return `value`. Raise a ValueError if `value` is not an integer from `least` to `most`."""
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}, not an integer from {least} to {most}")
    return value


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return a context manager that computes matrix products in `dtype`. It does nothing if `dtype` is not 16-bit."""
    return torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16))


class LanguageModel(nn.Module, ABC):
    """A model that can be trained; its constructor takes a configuration and a seed for the initial weights."""

    config_class: ClassVar[Any]
    """A frozen dataclass whose class method `of` makes a configuration from a run's settings and a `DataShape`."""
    loss_unit: ClassVar[LossUnit] = "nats"
    targets_per_window: int
    """Number of predicted tokens per window."""
    config: Any
    """An instance of `config_class`; it has at least `vocab_size` and `num_positions`."""
    model: nn.Module
    """The layers between the tokens and the output layer; ``train.compile`` compiles them."""

    @property
    @abstractmethod
    def embeddings(self) -> Tensor:
        """Return the token embeddings (V, D). Their initial values may come from an embeddings file."""

    @abstractmethod
    def training_loss(self, windows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the differentiable sum of the losses of all targets. Matrix products are computed in `dtype`.

        Each row of `windows` (n, size + 1), int64, has the input tokens and the one token that follows them.
        """

    @abstractmethod
    def score(self, windows: Tensor, dtype: torch.dtype) -> tuple[float, int]:
        """Return the sum of the losses of all targets, and the number of targets that the model ranks first."""

    @abstractmethod
    def loss_of_each_target(self, windows: Tensor) -> Tensor:
        """Return the loss of each target, (n, targets), in `windows` (n, at most size + 1). Compute no gradients."""

    @torch.no_grad()
    def set_embeddings(self, embeddings: Tensor) -> None:
        """Set the token embeddings to `embeddings` (V, D)."""
        self.embeddings.copy_(embeddings)

    @property
    def num_parameters(self) -> int:
        """Return the number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())


class SoftmaxModel(LanguageModel):
    """A model that ends with a linear layer over the vocabulary; its loss is the cross entropy in nats."""

    @property
    def output_weight(self) -> Tensor:
        """Return the weights of the output layer (V, D). With tied weights, these are the token embeddings."""
        return self.embeddings

    @abstractmethod
    def states_and_targets(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the output layer (N, D) and the targets (N) of `windows` (n, size + 1)."""

    def training_loss(self, windows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the differentiable sum of the negative log likelihoods of all targets, in nats."""
        states, targets = self._states(windows, dtype)
        return linear_cross_entropy(states, self.output_weight, targets, dtype)

    def score(self, windows: Tensor, dtype: torch.dtype) -> tuple[float, int]:
        """Return the summed loss in nats, and the number of targets with the highest logit."""
        states, targets = self._states(windows, dtype)
        return loss_and_hits(states, self.output_weight, targets, dtype)

    @torch.no_grad()
    def loss_of_each_target(self, windows: Tensor) -> Tensor:
        """Return the negative log likelihoods (n, targets) of all targets, in nats."""
        states, targets = self.states_and_targets(windows)
        return loss_of_each(states, self.output_weight, targets).view(len(windows), -1)

    def _states(self, windows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with autocast(windows.device, dtype):
            return self.states_and_targets(windows)
