"""Losses of output layers. The logits of all positions are never in memory at once.

The logits take V / D times as much memory as the hidden states: 16 times for a vocabulary of 4,096 tokens and
256 features. On CPUs, the logits are computed for 256 positions at a time, so they stay in the processor's caches. This
makes a training step about 1.4 times as fast. On GPUs, more positions are computed at a time, because starting an
operation takes time. The gradient of the logits is computed together with the logits (as in the Liger kernels,
arXiv:2410.10989).

Shapes in comments: N targets, D features, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch code
from torch import Tensor

CHUNK_POSITIONS = 256
"""Number of positions whose logits are computed at a time on CPUs. On GPUs, at least as many."""
GPU_CHUNK_LOGITS = 2**28
"""Number of logits that are computed at a time on GPUs: 1 GiB in float32."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the differentiable sum of the negative log likelihoods of `targets` (N), int64, in nats.

    Matrix products of `hidden` (N, D) and `weight` (V, D) are computed in `dtype`, the softmax in float32 or float64.
    """
    total: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, dtype)  # type: ignore[no-untyped-call]  # torch's
    return total


@torch.no_grad()
def loss_and_hits(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[float, int]:
    """Return the sum that `linear_cross_entropy` computes, and the number of targets that have the highest logit."""
    weight = weight.to(dtype)
    loss, hits = 0.0, 0
    for chunk in _chunks(targets, len(weight)):
        logits = _at_least_float32(F.linear(hidden[chunk].to(dtype), weight))
        loss += F.cross_entropy(logits, targets[chunk], reduction="sum").item()
        hits += int((logits.argmax(dim=-1) == targets[chunk]).sum())
    return loss, hits


@torch.no_grad()
def loss_of_each(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log likelihoods (N) of `targets` (N), in nats."""
    parts = [
        F.cross_entropy(F.linear(hidden[chunk], weight), targets[chunk], reduction="none")
        for chunk in _chunks(targets, len(weight))
    ]
    return torch.cat([hidden.new_zeros(0), *parts])


@torch.no_grad()
def distance_and_hits(predicted: Tensor, targets: Tensor, embeddings: Tensor) -> tuple[float, int]:
    """Return the summed squared distance from the predictions to their targets' embeddings, and the number of hits.

    A prediction is a hit if its target's embedding is nearer to it than all other embeddings. Shapes: `predicted`
    (N, D); `targets` (N), int64; `embeddings` (V, D), which all have the same norm.
    """
    distance = (predicted - embeddings[targets]).square().sum().item()
    hits = sum(
        int((F.linear(predicted[chunk], embeddings).argmax(dim=-1) == targets[chunk]).sum())
        for chunk in _chunks(targets, len(embeddings))
    )
    return distance, hits


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
        hidden_cast, weight_cast = hidden.to(dtype), weight.to(dtype)
        total = torch.zeros((), dtype=weight.dtype, device=weight.device)
        for chunk in _chunks(targets, len(weight)):
            logits = _at_least_float32(F.linear(hidden_cast[chunk], weight_cast))
            chunk_total, gradient = _cross_entropy_and_gradient(logits, targets[chunk, None])
            total += chunk_total
            gradient = gradient.to(dtype)
            hidden_gradient[chunk] = gradient @ weight_cast
            if dtype == weight.dtype:
                weight_gradient.addmm_(gradient.T, hidden_cast[chunk])
            else:
                weight_gradient += gradient.T @ hidden_cast[chunk]
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * outer[0], weight_gradient * outer[0], None, None


def _cross_entropy_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss of `targets` (N, 1), and its gradient with respect to `logits` (N, V).

    The gradient is softmax(logits) - onehot(targets), and overwrites `logits`. Torch's kernel computes the softmax in
    one pass. The logarithm of the softmax's denominator is computed from the logit and the probability of the
    likeliest token.
    """
    highest, of_targets = logits.amax(dim=-1, keepdim=True), logits.gather(1, targets)
    gradient = torch.softmax(logits, dim=-1, out=logits)
    log_total = highest - gradient.amax(dim=-1, keepdim=True).log()
    gradient.scatter_add_(1, targets, gradient.new_full((1, 1), -1.0).expand_as(targets))
    return (log_total - of_targets).sum(), gradient


def _chunks(targets: Tensor, vocab_size: int) -> list[slice]:
    """Return slices that cover `targets`, each with the positions whose logits are computed together."""
    on_cpu = targets.device.type == "cpu"
    size = CHUNK_POSITIONS if on_cpu else max(CHUNK_POSITIONS, GPU_CHUNK_LOGITS // vocab_size)
    return [slice(start, start + size) for start in range(0, len(targets), size)]


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
