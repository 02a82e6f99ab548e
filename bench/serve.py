"""``make bench-serve``: 32 requests at once to ``nightjar serve``, against the same requests one after another.

The default model with random weights, a context of 256 tokens and OpenAI's client. Each request has a prompt of 64
tokens, and asks for 128 with a temperature of 0.8 and top-k 50. Server and client share this machine. The rounds
alternate, and the result is the median ratio, so that a busy machine affects both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import openai

from jobs.config import ModelConfig
from jobs.model.language_model import DataShape
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io.folder import save_model
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import train_bpe
from tests.support.serving import serving

VOCAB_SIZE, NUM_POSITIONS, PREFILL, NEW_TOKENS, REQUESTS = 4096, 256, 64, 128, 32


async def complete(client: openai.AsyncOpenAI, model: str, number: int) -> tuple[str, int]:
    """Return the text of one request, and its number of tokens."""
    prompt = [(number * 31 + place * 7) % 256 + 1 for place in range(PREFILL)]
    made = await client.completions.create(
        model=model, prompt=prompt, max_tokens=NEW_TOKENS, temperature=0.8, seed=number, extra_body={"top_k": 50}
    )
    assert made.usage is not None
    return made.choices[0].text, made.usage.completion_tokens


async def measure(url: str, model: str, numbers: range, *, together: bool) -> tuple[float, list[str]]:
    """Return the tokens per second of requests, and their texts."""
    async with openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=300) as client:
        await client.models.list()  # opens a connection
        started = time.perf_counter()
        if together:
            made = await asyncio.gather(*(complete(client, model, number) for number in numbers))
        else:
            made = [await complete(client, model, number) for number in numbers]
        seconds = time.perf_counter() - started
    return sum(num_tokens for _, num_tokens in made) / seconds, [text for text, _ in made]


def make_model(folder: Path) -> None:
    """Write a model with random weights, and a tokenizer of this project's documentation."""
    pages = [page.read_bytes() for page in sorted(Path("docs").rglob("*.md"))]
    tokenizer = Tokenizer(train_bpe(pages, VOCAB_SIZE))
    shape = DataShape(tokenizer.vocab_size, NUM_POSITIONS, tokenizer.end_of_text)
    save_model(folder.as_uri(), Llama(LlamaConfig.of(ModelConfig(), shape), seed=1), tokenizer)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        with serving(Path(folder), "--model", folder, "--dtype", options.dtype) as running:
            rows, few = [], range(REQUESTS // 4)
            asyncio.run(measure(running.url, folder, few, together=True))
            for _ in range(options.rounds):
                one, alone = asyncio.run(measure(running.url, folder, few, together=False))
                many, texts = asyncio.run(measure(running.url, folder, range(REQUESTS), together=True))
                equal = sum(a == b for a, b in zip(alone, texts, strict=False))
                rows.append((one, many, len(texts), equal))
    print("| one at a time, tokens/s | 32 at once, tokens/s | ratio | answered | same text as alone |")
    print("|---:|---:|---:|---:|---:|")
    for one, many, answered, equal in rows:
        print(f"| {one:,.0f} | {many:,.0f} | {many / one:.1f}x | {answered} of {REQUESTS} | {equal} of {len(few)} |")
    print(f"\nmedian ratio {statistics.median(many / one for one, many, *_ in rows):.1f}x ({options.dtype})")


if __name__ == "__main__":
    main()
