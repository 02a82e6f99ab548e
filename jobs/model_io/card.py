"""The model card: the corpus, metrics, configuration, samples and limits of a model, as a Markdown file."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobs.config import Config
from jobs.metrics import Show, chosen, names
from jobs.metrics.stats import TrainStats

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

{num_parameters:,} parameters in Llama's architecture, trained from scratch on the corpus below. Open it with
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

{num_parameters:,} parameters of kind {kind}, trained from scratch on the corpus below. `transformers` has no such
architecture; open it with `python -m jobs sample --model FOLDER`.
"""
_LIMITS = """\
## Limits

- It continues text in the style of its corpus. It is not trained to answer questions, and its output may be false.
- It may repeat errors, prejudice, names and whole passages of the corpus.
- It reads {num_positions} tokens at a time; earlier tokens have no influence.
- The metrics are measured on held-out parts of the same corpus. They do not apply to other text.
"""


class CardSample(NamedTuple):
    """A prompt and the model's continuation of it."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Facts:
    """The content of a model card."""

    run_id: str
    config: Config
    sources: Sequence[Mapping[str, Any]]
    """The files of the corpus: `name`, `size` in bytes and `sha256` of each."""
    stats: Mapping[str, Any]
    """The statistics of the train step (see `jobs.metrics.stats.TrainStats`)."""
    vocab_size: int
    samples: Sequence[CardSample]


def card_stats(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics for ``training_stats.json``, without those that vary between equal trainings."""
    return chosen(stats, names(TrainStats, Show.CARD))


def write_card(facts: Facts) -> str:
    """Return the content of ``README.md``."""
    parts = (
        _header(facts),
        _corpus(facts.sources),
        _metrics(facts.stats, facts.vocab_size),
        _configuration(facts.config),
        _samples(facts.samples),
        _LIMITS.format(num_positions=facts.config.windows.size),
    )
    return "\n".join(parts)


def _header(facts: Facts) -> str:
    kind = facts.config.model.kind
    header = _LLAMA_HEADER if kind == "transformer" else _CONTEXT_HEADER
    return header.format(run_id=facts.run_id, num_parameters=facts.stats["num_parameters"], kind=kind)


def _corpus(sources: Sequence[Mapping[str, Any]]) -> str:
    rows = [f"| {_cell(each['name'])} | {each['size']:,} | `{each['sha256']}` |" for each in sources[:MOST_SOURCES]]
    more = [f"\nand {len(sources) - MOST_SOURCES:,} more files"] if len(sources) > MOST_SOURCES else []
    total = sum(each["size"] for each in sources)
    head = f"## Corpus\n\n{len(sources):,} files, {total:,} bytes\n\n| file | bytes | sha256 |\n|---|---:|---|"
    return "\n".join([head, *rows, *more]) + "\n"


def _metrics(stats: Mapping[str, Any], vocab_size: int) -> str:
    rows = {
        **(_regression(stats) if "mean_vector_loss" in stats else _likelihood(stats, vocab_size)),
        "validation accuracy (next token)": f"{stats['valid_accuracy']:.1%}",
        "training loss": f"{stats['train_loss']:.4f}",
        "steps": f"{stats['num_steps']:,}",
        "training tokens": f"{stats['num_tokens']:,}",
    }
    return (
        "\n".join(["## Metrics\n\n| | |\n|---|---:|", *(f"| {name} | {value} |" for name, value in rows.items())])
        + "\n"
    )


def _likelihood(stats: Mapping[str, Any], vocab_size: int) -> dict[str, str]:
    return {
        "validation loss (nats per token)": f"{stats['valid_loss']:.4f}",
        "baseline: unigram frequencies": f"{stats['unigram_loss']:.4f}",
        "baseline: bigram frequencies": f"{stats['bigram_loss']:.4f}",
        "baseline: uniform distribution": f"{math.log(vocab_size):.4f}",
        "bits per byte": f"{stats['bits_per_byte']:.4f}",
        "perplexity": f"{stats['perplexity']:.2f}",
    }


def _regression(stats: Mapping[str, Any]) -> dict[str, str]:
    return {
        "validation loss (squared distance to the next embedding)": f"{stats['valid_loss']:.4f}",
        "baseline: mean embedding": f"{stats['mean_vector_loss']:.4f}",
        "baseline: accuracy of the most frequent token": f"{stats['unigram_accuracy']:.1%}",
    }


def _configuration(config: Config) -> str:
    settings = config.model_dump(mode="json", include={"preset", "tokenize", "windows", "model", "train"})
    return f"## Configuration\n\n{_verbatim(json.dumps(settings, indent=2, ensure_ascii=False))}\n"


def _samples(samples: Sequence[CardSample]) -> str:
    texts = [f"Prompt:\n\n{_verbatim(each.prompt)}\n\nContinuation:\n\n{_verbatim(each.text)}\n" for each in samples]
    return "\n".join(["## Samples\n", *texts])


def _verbatim(text: str) -> str:
    """Return `text` as an indented code block; it may contain any fence, so a fenced block could end too early."""
    return textwrap.indent(text or "(empty)", "    ", lambda _: True)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
