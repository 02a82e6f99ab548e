"""nanoGPT's recipe for a CPU, written anew after its README: what people start from (peer of `bench.quality`).

GPT-2 without dropout and biases: 4 layers, 4 heads, 128 wide, context 64; characters as tokens; 2,000 steps on 12
random windows in float32; AdamW with betas 0.9 and 0.99, weight decay 0.1 on matrices; 100 steps of warm-up to 1e-3,
then a cosine to 1e-4; gradients clipped to 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code knows it by
from torch import Tensor, nn

LAYERS, HEADS, SIZE, CONTEXT, BATCH, STEPS = 4, 4, 128, 64, 12, 2000
RATE, LEAST_RATE, WARMUP, DECAY, MAX_NORM = 1e-3, 1e-4, 100, 0.1, 1.0


class Block(nn.Module):
    """Attention and GELU, each normed before."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(SIZE, bias=False) for _ in range(2))
        self.attention_in, self.attention_out = (nn.Linear(SIZE, width, bias=False) for width in (3 * SIZE, SIZE))
        self.dense_in = nn.Linear(SIZE, 4 * SIZE, bias=False)
        self.dense_out = nn.Linear(4 * SIZE, SIZE, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        parts = self.attention_in(self.norms[0](x)).split(SIZE, dim=2)
        heads = (part.view(*part.shape[:2], HEADS, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).flatten(2))
        return x + self.dense_out(F.gelu(self.dense_in(self.norms[1](x))))  # type: ignore[no-any-return]  # torch's


class NanoGPT(nn.Module):
    """The model with its loss."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, SIZE), nn.Embedding(CONTEXT, SIZE)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(SIZE, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                small = name.endswith(("attention_out.weight", "dense_out.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if small else 0.02)

    def forward(self, windows: Tensor) -> Tensor:
        """Mean loss in nats of windows (B, T + 1)."""
        x = self.tokens(windows[:, :-1]) + self.positions.weight
        logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class Training:
    """Its steps on a text."""

    def __init__(self, text: bytes, num_train: int) -> None:
        letters = sorted(set(text))
        table = torch.zeros(256, dtype=torch.long)
        table[letters] = torch.arange(len(letters))
        stream = table[torch.frombuffer(bytearray(text), dtype=torch.uint8).long()]
        self._train, self._valid = stream[:num_train], stream[num_train:]
        torch.manual_seed(1337)
        self._model = NanoGPT(len(letters))
        groups = [
            {"params": [one for one in self._model.parameters() if one.dim() >= 2]},
            {"params": [one for one in self._model.parameters() if one.dim() < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), weight_decay=DECAY)

    def step(self, number: int) -> None:
        """Step `number`, counted from 0."""
        starts = torch.randint(len(self._train) - CONTEXT, (BATCH,))
        loss = self._model(torch.stack([self._train[start : start + CONTEXT + 1] for start in starts]))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), MAX_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(number)
        self._optimizer.step()

    @torch.no_grad()
    def bits_per_byte(self) -> float:
        """On the whole text that it is not trained on, in windows side by side."""
        windows = self._valid.unfold(0, CONTEXT + 1, CONTEXT)
        losses = [self._model(some).item() * len(some) for some in windows.split(256)]
        return sum(losses) / len(windows) / math.log(2)


def learning_rate(step: int) -> float:
    """Warm-up, then a cosine."""
    if step < WARMUP:
        return RATE * (step + 1) / (WARMUP + 1)
    share = (step - WARMUP) / (STEPS - WARMUP)
    return LEAST_RATE + (RATE - LEAST_RATE) * (1 + math.cos(math.pi * share)) / 2
