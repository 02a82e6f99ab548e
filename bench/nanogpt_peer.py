"""nanoGPT's training recipe for a CPU, reimplemented from its README, for `bench.quality`.

The model is GPT-2 without dropout and biases: 4 layers, 4 heads, embedding size 128, context 64, characters as tokens.
It trains for 2,000 steps on batches of 12 random windows in float32. The optimizer is AdamW with betas 0.9 and 0.99 and
weight decay 0.1 on matrices. The learning rate warms up to 1e-3 in 100 steps, then follows a cosine to 1e-4. Gradients
are clipped to norm 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the conventional name
from torch import Tensor, nn

LAYERS, HEADS, SIZE, CONTEXT, BATCH, STEPS = 4, 4, 128, 64, 12, 2000
RATE, LEAST_RATE, WARMUP, DECAY, MAX_NORM = 1e-3, 1e-4, 100, 0.1, 1.0


class Block(nn.Module):
    """A transformer block: attention and a GELU layer, each after a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(SIZE, bias=False) for _ in range(2))
        self.attention_in, self.attention_out = (nn.Linear(SIZE, width, bias=False) for width in (3 * SIZE, SIZE))
        self.dense_in = nn.Linear(SIZE, 4 * SIZE, bias=False)
        self.dense_out = nn.Linear(4 * SIZE, SIZE, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        parts = self.attention_in(self.norms[0](x)).split(SIZE, dim=2)
        heads = (part.view(*part.shape[:2], HEADS, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).flatten(2))
        return x + self.dense_out(F.gelu(self.dense_in(self.norms[1](x))))  # type: ignore[no-any-return]  # torch's


class NanoGPT(nn.Module):
    """The model, which returns its loss."""

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
        """Return the mean loss in nats of windows (B, T + 1)."""
        x = self.tokens(windows[:, :-1]) + self.positions.weight
        logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class Training:
    """The training of a model on a text."""

    def __init__(self, text: bytes, num_train: int) -> None:
        characters = sorted(set(text))
        table = torch.zeros(256, dtype=torch.long)
        table[characters] = torch.arange(len(characters))
        stream = table[torch.frombuffer(bytearray(text), dtype=torch.uint8).long()]
        self._train, self._valid = stream[:num_train], stream[num_train:]
        torch.manual_seed(1337)
        self._model = NanoGPT(len(characters))
        groups = [
            {"params": [one for one in self._model.parameters() if one.dim() >= 2]},
            {"params": [one for one in self._model.parameters() if one.dim() < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), weight_decay=DECAY)

    def step(self, number: int) -> None:
        """Do step `number`, counted from 0."""
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
        """Return the bits per byte on the validation text, in adjacent windows."""
        windows = self._valid.unfold(0, CONTEXT + 1, CONTEXT)
        losses = [self._model(batch).item() * len(batch) for batch in windows.split(256)]
        return sum(losses) / len(windows) / math.log(2)


def learning_rate(step: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine."""
    if step < WARMUP:
        return RATE * (step + 1) / (WARMUP + 1)
    share = (step - WARMUP) / (STEPS - WARMUP)
    return LEAST_RATE + (RATE - LEAST_RATE) * (1 + math.cos(math.pi * share)) / 2
