"""The model card: the corpus, metrics, configuration, samples and limits of a model, as a Markdown file."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.config import Config
from jobs.errors import counted
from jobs.lake.models import LINEAGE
from jobs.metrics import Show, chosen, names
from jobs.metrics.stats import TrainStats
from jobs.model_io.lineage import Lineage

MOST_SOURCES = 20

_LLAMA_HEADER = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- nightjar
---

# A language model of run {run_id}

{num_parameters:,} parameters in Llama's architecture, trained {origin} on the corpus below. Open the model with
`transformers.AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`, or with
`python -m jobs sample --model FOLDER`.
"""
_CONTEXT_HEADER = """\
---
pipeline_tag: text-generation
tags:
- nightjar
---

# A language model of run {run_id}

{num_parameters:,} parameters of kind {kind}, trained {origin} on the corpus below. `transformers` has no such
architecture; open the model with `python -m jobs sample --model FOLDER`.
"""
_METRICS = """\
## Metrics

| | |
|---|---:|
"""
_LIKELIHOOD = """\
| validation loss (nats per token) | {valid_loss:.4f} |
| baseline: unigram frequencies | {unigram_loss:.4f} |
| baseline: bigram frequencies | {bigram_loss:.4f} |
| baseline: uniform distribution | {uniform_loss:.4f} |
| bits per byte | {bits_per_byte:.4f} |
| perplexity | {perplexity:.2f} |
"""
_REGRESSION = """\
| validation loss (squared distance to the next embedding) | {valid_loss:.4f} |
| baseline: mean embedding | {mean_vector_loss:.4f} |
| baseline: accuracy of the most frequent token | {unigram_accuracy:.1%} |
"""
_METRICS_OF_ALL = """\
| validation accuracy (next token) | {valid_accuracy:.1%} |
| training loss | {train_loss:.4f} |
| steps | {num_steps:,} |
| training tokens | {num_tokens:,} |
"""
_LIMITS = """\
## Limits

- It continues text in the style of its corpus. It is not trained to answer questions, and its output may be false.
- It may repeat errors, prejudice, names and whole passages of the corpus.
- It reads {num_positions} tokens at a time; earlier tokens have no influence.
- The metrics are measured on held-out parts of the same corpus. They do not apply to other text.
"""


def card_stats(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics for ``training_stats.json``, without those that differ when a training is repeated."""
    return chosen(stats, names(TrainStats, Show.CARD))


def write_card(
    run_id: str,
    config: Config,
    sources: Sequence[Mapping[str, Any]],
    stats: Mapping[str, Any],
    vocab_size: int,
    samples: Sequence[tuple[str, str]],
    lineage: Lineage,
) -> str:
    """Return the content of ``README.md``.

    `sources` has the `name`, the `size` in bytes and the `sha256` of each file of the corpus, `stats` are `TrainStats`,
    and `samples` are prompts with the model's continuations.
    """
    kind = config.model.kind
    header = _LLAMA_HEADER if kind == "transformer" else _CONTEXT_HEADER
    metrics = _METRICS + (_REGRESSION if "mean_vector_loss" in stats else _LIKELIHOOD) + _METRICS_OF_ALL
    start = stats.get("weights_from", "scratch")
    origin = "from scratch" if start == "scratch" else f"from the weights of {start}"
    settings = config.model_dump(mode="json", include={"preset", "tokenize", "windows", "model", "train"})
    parts = (
        header.format(run_id=run_id, num_parameters=stats["num_parameters"], kind=kind, origin=origin),
        _corpus(sources),
        metrics.format(**stats, uniform_loss=math.log(vocab_size)),
        _lineage(lineage),
        f"## Configuration\n\n{_verbatim(json.dumps(settings, indent=2, ensure_ascii=False))}\n",
        "\n".join(["## Samples\n", *(_sample(*each) for each in samples)]),
        _LIMITS.format(num_positions=config.windows.size),
    )
    return "\n".join(parts)


def _corpus(sources: Sequence[Mapping[str, Any]]) -> str:
    rows = [f"| {_cell(each['name'])} | {each['size']:,} | `{each['sha256']}` |" for each in sources[:MOST_SOURCES]]
    more = [f"\nand {len(sources) - MOST_SOURCES:,} more files"] if len(sources) > MOST_SOURCES else []
    total = sum(each["size"] for each in sources)
    size = f"{counted(len(sources), 'file')}, {counted(total, 'byte')}"
    head = f"## Corpus\n\n{size}\n\n| file | bytes | sha256 |\n|---|---:|---|"
    return "\n".join([head, *rows, *more]) + "\n"


def _lineage(lineage: Lineage) -> str:
    rows = [f"| {name} | {_cell(value)} |" for name, value in lineage.essentials().items()]
    return "\n".join([f"## Lineage\n\nThe complete lineage is in `{LINEAGE}`.\n\n| | |\n|---|---|", *rows]) + "\n"


def _sample(prompt: str, text: str) -> str:
    return f"Prompt:\n\n{_verbatim(prompt)}\n\nContinuation:\n\n{_verbatim(text)}\n"


def _verbatim(text: str) -> str:
    """Return `text` as an indented code block. A fenced code block would end too early at a fence in the text."""
    return textwrap.indent(text or "(empty)", "    ", lambda _: True)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
