"""``make bench-train``: our training step against `transformers`, with the same Llama, batch and arithmetic.

Ours is the training step of a run: loss and gradients, clipping, AdamW. Theirs is the usual code with the library:
`LlamaForCausalLM`, autocast for bfloat16, `clip_grad_norm_`, and fused AdamW as in ours. Both sides run alternately,
and the result is the median ratio of the pairs, in seconds and in CPU seconds. The share of peak counts 6 operations
per parameter and token (2 forward, 4 backward, with the embeddings once, as the output layer) and those of the
attention scores.

A second table compares Muon's update with that of torch, which computes in bfloat16 on any processor.

With `--device cuda` both sides train on a GPU, where seconds are the measure; `--compile` compiles both models.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import LlamaConfig as PeerConfig
from transformers import LlamaForCausalLM

from bench.table import show, target
from jobs.config import ModelConfig, TrainConfig, resolve
from jobs.model.language_model import DataShape
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io.configs import llama_values
from jobs.training.learner import Learner, choose_device
from jobs.training.optimizer import Muon, build_optimizer

TARGET = 1.3
LEARNING_RATE, MAX_NORM = 1e-4, 1.0


@dataclass(frozen=True)
class Case:
    """The model, vocabulary, window size and batch sizes of a preset."""

    name: str
    model: ModelConfig
    vocab_size: int
    window: int
    batch_size: int
    micro_batch_size: int

    @classmethod
    def of(cls, preset: str) -> Case:
        """Return the case of a preset."""
        config = resolve("none", preset)
        batch_size = config.train.batch_size
        micro_batch_size = config.train.micro_batch_size or batch_size
        vocab_size, window = config.tokenize.vocab_size, config.windows.size
        return cls(preset, config.model, vocab_size, window, batch_size, micro_batch_size)

    @property
    def shape(self) -> DataShape:
        """The shape of the data."""
        return DataShape(self.vocab_size, self.window, end_of_text=0)

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.window * self.batch_size

    def flops(self, num_parameters: int) -> float:
        """Return the floating-point operations of a step's matrix products."""
        attention = (
            6 * self.model.num_layers * self.window * self.model.embedding_size
        )  # causal attention computes half of the scores
        return self.tokens * (6.0 * num_parameters + attention)


@dataclass(frozen=True)
class How:
    """How both sides compute."""

    dtype: str
    device: torch.device
    compile: bool


def our_step(case: Case, how: How) -> tuple[Callable[[Tensor], float], Llama]:
    """Return the training step of a run, and its model."""
    model = _model(case)
    config = TrainConfig(
        optimizer="adamw",
        dtype=how.dtype,
        workers=1,
        max_gradient_norm=MAX_NORM,
        micro_batch_size=case.micro_batch_size,
        compile=how.compile,
    )
    learner = Learner(model, config, how.device)

    def step(windows: Tensor) -> float:
        loss = learner.backward(windows, case.tokens)
        learner.update(LEARNING_RATE)
        return loss

    return step, model


def their_step(case: Case, how: How, weights: dict[str, Tensor]) -> Callable[[Tensor], float]:
    """Return the same training step with `transformers`."""
    shape = LlamaConfig.of(case.model, case.shape)
    model = LlamaForCausalLM(PeerConfig(**llama_values(shape), attn_implementation="sdpa"))
    model.load_state_dict(weights, strict=False)  # without the output layer, which is tied to the embedding
    model.to(how.device).train()
    if how.compile:
        model.compile()
    config = TrainConfig()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )

    def step(windows: Tensor) -> float:
        total = 0.0
        for piece in windows.to(how.device).split(case.micro_batch_size):
            inputs, labels = piece[:, :-1], piece[:, 1:]
            with torch.autocast(how.device.type, torch.bfloat16, enabled=how.dtype == "bfloat16"):
                logits = model(input_ids=inputs, use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
            loss = loss * (len(piece) / len(windows))
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


def measure(step: Callable[[Tensor], object], batches: list[Tensor]) -> tuple[float, float]:
    """Return the seconds and CPU seconds of a step. Each step ends with a wait for its loss."""
    started, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        step(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # the last update
    return (time.perf_counter() - started) / len(batches), (time.process_time() - cpu) / len(batches)


def peak(how: How) -> float:
    """Return the highest floating-point operations per second of matrix products of several sizes."""
    best = 0.0
    for size in (256, 512, 1024) if how.device.type == "cpu" else (4096, 8192):
        one, other = (torch.randn(size, size, dtype=getattr(torch, how.dtype), device=how.device) for _ in range(2))
        for _ in range(20):
            seconds, _ = measure(partial(torch.mm, one), [other])
            best = max(best, 2 * size**3 / seconds)
    return best


def compare(case: Case, how: How, pairs: int, steps: int) -> tuple[list[str], float]:
    """Return a row of the table, and the ratio: by CPU seconds, or on a GPU by seconds."""
    generator = torch.Generator().manual_seed(2)
    shape = (steps, case.batch_size, case.window + 1)
    batches = list(torch.randint(0, case.vocab_size, shape, generator=generator))
    ours, model = our_step(case, how)
    theirs = their_step(case, how, {name: tensor.clone() for name, tensor in model.state_dict().items()})
    losses = [(ours(batch), theirs(batch)) for batch in batches[:3]]  # a warm-up that also compares the losses
    difference = max(abs(one / other - 1) for one, other in losses)
    taken = [(measure(ours, batches), measure(theirs, batches)) for _ in range(pairs)]
    by_clock, by_cpu = (statistics.median(other[i] / one[i] for one, other in taken) for i in (0, 1))
    our_seconds = min(one[0] for one, _ in taken)
    share = case.flops(model.num_parameters) / our_seconds / peak(how)
    speeds = [f"{case.tokens / min(side[0] for side in sides):,.0f}" for sides in zip(*taken, strict=True)]
    row = [
        f"{case.name}, {how.dtype}",
        *speeds,
        f"{by_clock:.2f}x",
        f"{by_cpu:.2f}x",
        f"{difference:.0e}",
        f"{share:.0%}",
    ]
    return row, by_cpu if how.device.type == "cpu" else by_clock


def compare_muon(case: Case, dtype: str, pairs: int) -> list[str]:
    """Return a row about Muon's update of the model's hidden matrices, ours and that of torch."""
    groups = [build_optimizer(_model(case), TrainConfig()).param_groups[0] for _ in range(2)]
    matrices = [group["params"] for group in groups]
    options = {"lr": LEARNING_RATE, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True}
    ours = Muon([{"params": matrices[0]}], getattr(torch, dtype), **options)
    theirs = torch.optim.Muon(matrices[1], adjust_lr_fn="match_rms_adamw", **options)
    for matrix in (*matrices[0], *matrices[1]):
        matrix.grad = torch.randn_like(matrix)
    taken = [(measure_update(ours), measure_update(theirs)) for _ in range(pairs)]
    ratio = statistics.median(other / one for one, other in taken)
    return [
        f"{case.name}, {dtype}",
        *(f"{1000 * min(side):.1f}" for side in zip(*taken, strict=True)),
        f"{ratio:.1f}x",
    ]


def measure_update(optimizer: torch.optim.Optimizer) -> float:
    """Return the CPU seconds of an update."""
    return measure(lambda _: optimizer.step(), [torch.empty(0)])[1]


def _model(case: Case) -> Llama:
    return Llama(LlamaConfig.of(case.model, case.shape), seed=1)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--presets", nargs="+", default=["tiny", "demo"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--compile", action="store_true", help="compile both models")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(0, options.device)
    place = f"{options.threads} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    results = [
        compare(Case.of(preset), How(dtype, device, options.compile), options.pairs, options.steps)
        for preset in options.presets
        for dtype in options.dtype
    ]
    header = ["preset", "ours, tokens/s", "transformers", "ratio", "by CPU", "losses differ by", "share of peak"]
    load = os.getloadavg()[0]
    show(f"{place}, load {load:.1f}, best of {options.pairs}", header, [row for row, _ in results])
    if device.type == "cpu":
        rows = [
            compare_muon(Case.of(preset), dtype, options.pairs) for preset in options.presets for dtype in options.dtype
        ]
        show("Muon's update, CPU time", ["preset", "ours, ms", "torch.optim.Muon, ms", "ratio"], rows)
    measured = "CPU seconds" if device.type == "cpu" else "seconds"
    target(f"lowest ratio by {measured}", min(ratio for _, ratio in results), TARGET)


if __name__ == "__main__":
    main()
