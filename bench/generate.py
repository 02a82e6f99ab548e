"""``make bench-generate``: our decoder against `transformers.generate`, with the same weights, greedy, on the CPU.

The default model with a context of 256 generates 128 tokens after a prompt of 64, at batch sizes 1 and 32. Both sides
start and end with token ids. They run alternately, and the result is the median ratio of the pairs, so that a busy
machine affects both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, logging

from jobs.config import ModelConfig
from jobs.generation.decoder import InferenceLlama
from jobs.generation.sampling import likeliest
from jobs.model.language_model import DataShape
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io.folder import save_model
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import tokenizer_json

PEER_DTYPE = {"int8": "float32"}  # transformers has no int8 on the CPU
VOCAB_SIZE, NUM_POSITIONS, PREFILL, NEW_TOKENS = 8192, 256, 64, 128


@torch.inference_mode()
def ours(model: InferenceLlama, prompts: torch.Tensor) -> torch.Tensor:
    """Return the new tokens (B, 128) after prompts (B, 64)."""
    stream = model.stream()
    stream.join(prompts.tolist())
    tokens = [likeliest(stream.logits)]
    while len(tokens) < NEW_TOKENS:
        stream.feed(tokens[-1])
        tokens.append(likeliest(stream.logits))
    return torch.stack(tokens, dim=1)


@torch.inference_mode()
def theirs(model: torch.nn.Module, prompts: torch.Tensor) -> torch.Tensor:
    """Return the new tokens (B, 128) after prompts (B, 64)."""
    made = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS, pad_token_id=0, use_cache=True,
    )  # fmt: skip
    return made[:, PREFILL:]


def seconds(function: Callable[[], object]) -> float:
    """Return the seconds that `function` takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def bandwidth() -> float:
    """Return the bytes per second that all threads together read from memory."""
    buffer = torch.ones(2**26)  # 256 MiB, larger than the cache
    return buffer.nbytes / min(seconds(buffer.sum) for _ in range(7))


def make_models(folder: str, dtype: str) -> tuple[InferenceLlama, torch.nn.Module]:
    """Return one model twice: in our decoder, and as `transformers` opens its folder."""
    model = Llama(LlamaConfig.of(ModelConfig(), DataShape(VOCAB_SIZE, NUM_POSITIONS, end_of_text=0)), seed=1).eval()
    save_model(Path(folder).as_uri(), model, Tokenizer(tokenizer_json([])))
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, PEER_DTYPE.get(dtype, dtype)))
    peer.generation_config.eos_token_id = None  # random weights may predict it, but both sides must generate all tokens
    return InferenceLlama(model, dtype), peer


def compare(dtype: str, batch_size: int, pairs: int, bytes_per_second: float) -> None:
    """Measure one row of the table and print it."""
    with tempfile.TemporaryDirectory() as folder:
        model, peer = make_models(folder, dtype)
    prompts = torch.randint(0, VOCAB_SIZE, (batch_size, PREFILL), generator=torch.Generator().manual_seed(2))
    equal = (ours(model, prompts) == theirs(peer, prompts)).float().mean().item()
    times = [(seconds(lambda: ours(model, prompts)), seconds(lambda: theirs(peer, prompts))) for _ in range(pairs)]
    ratio = statistics.median(peer_time / our_time for our_time, peer_time in times)
    speeds = [NEW_TOKENS / statistics.median(column) for column in zip(*times, strict=True)]
    share = model.weight_bytes * speeds[0] / bytes_per_second
    print(
        f"| {dtype} | {batch_size} | {speeds[0] * batch_size:,.0f} | {speeds[1] * batch_size:,.0f} | {ratio:.1f}x |"
        f" {equal:.1%} | {share:.0%} |",
        flush=True,
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16", "int8"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bytes_per_second = bandwidth()
    print(f"{options.threads} threads, memory read at {bytes_per_second / 1e9:.1f} GB/s\n")
    print("| dtype | batch | ours, tokens/s | transformers, tokens/s | ratio | same tokens | share of bandwidth |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for dtype in options.dtype:
        for batch_size in (1, 32):
            compare(dtype, batch_size, options.pairs, bytes_per_second)


if __name__ == "__main__":
    main()
