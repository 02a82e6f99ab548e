"""What training needs of a model, whatever its kind: the loss of windows, and what its parameters are.

A window is `size` inputs and one target more. Some kinds predict the token after each input, others only the one after
the whole window, so a model says itself how many targets a window has and in what unit its loss is.

Shapes in comments: n windows, N targets, D features, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from jobs.model.loss import linear_cross_entropy, loss_and_hits

MOST_POSITIONS, MOST_TOKENS = 1 << 20, 1 << 24
LossUnit = Literal["nats", "squared distance"]


@dataclass(frozen=True)
class DataShape:
    """What the data decide of a model."""

    vocab_size: int
    num_positions: int
    """Inputs of a window."""
    end_of_text: int
    """The token that ends each document."""

    def __post_init__(self) -> None:
        within("vocab_size", self.vocab_size, 1, MOST_TOKENS)
        within("num_positions", self.num_positions, 1, MOST_POSITIONS)
        within("end_of_text", self.end_of_text, 0, self.vocab_size - 1)


def within(name: str, value: object, least: int, most: int) -> int:
    """`value`, if it is a whole number in bounds.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}")
    return value


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in `dtype` where that is a short type; float32 and float64 are the weights' own."""
    return torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16))


class LanguageModel(nn.Module, ABC):
    """A model that can be trained."""

    loss_unit: ClassVar[LossUnit] = "nats"
    config: Any
    """A frozen dataclass with `vocab_size`, `num_positions`, and what else decides shapes and arithmetic."""
    model: nn.Module
    """What is compiled where `train.compile` asks for it: all between tokens and output layer."""

    @property
    @abstractmethod
    def embeddings(self) -> Tensor:
        """The vectors of tokens (V, D), which may start from an embeddings file."""

    @property
    @abstractmethod
    def targets_per_window(self) -> int:
        """How many tokens of a window are predicted."""

    @abstractmethod
    def training_loss(self, windows: Tensor, dtype: torch.dtype) -> Tensor:
        """The loss of all targets, summed, of which the gradient can be taken.

        Args:
            windows: Rows of inputs and one target more (n, size + 1), int64.
            dtype: Arithmetic of the matrix products.
        """

    @abstractmethod
    def score(self, windows: Tensor, dtype: torch.dtype) -> tuple[float, int]:
        """The loss of all targets, summed, and how many of them are what the model would say."""

    @torch.no_grad()
    def start_from(self, embeddings: Tensor) -> None:
        """Take `embeddings` (V, D)."""
        self.embeddings.copy_(embeddings)

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())


class SoftmaxModel(LanguageModel):
    """A model that ends with a linear layer over the vocabulary; its loss is the cross entropy, in nats."""

    @property
    @abstractmethod
    def output_weight(self) -> Tensor:
        """The output layer (V, D)."""

    @abstractmethod
    def states_and_targets(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """What the output layer sees (N, D), and the tokens that are to follow (N), of `windows` (n, size + 1)."""

    def training_loss(self, windows: Tensor, dtype: torch.dtype) -> Tensor:
        """The negative log likelihoods of all targets, summed, in nats."""
        states, targets = self._states(windows, dtype)
        return linear_cross_entropy(states, self.output_weight, targets, dtype)

    def score(self, windows: Tensor, dtype: torch.dtype) -> tuple[float, int]:
        """The summed loss in nats, and how many targets were the likeliest token."""
        states, targets = self._states(windows, dtype)
        return loss_and_hits(states, self.output_weight, targets, dtype)

    def _states(self, windows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with autocast(windows.device, dtype):
            return self.states_and_targets(windows)
