"""The model card: what the model was made from, how good it is, what it writes, and what it is not good for."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.config import Config
from jobs.generation.continuation import Continuation
from jobs.metrics.schema import Show, chosen, names
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

- It continues text like that of its corpus; it was not taught to answer, and what it says is no statement of fact.
- Whatever the corpus holds (errors, prejudice, names, passages word for word) the model may repeat.
- It sees {num_positions} tokens at a time; what came before is forgotten.
- The metrics are of held-out parts of the same corpus, and say nothing of other text.
"""


@dataclass(frozen=True)
class Facts:
    """What a card is written from."""

    run_id: str
    config: Config
    sources: Sequence[Mapping[str, Any]]
    """Name, size and sha256 of the files of the corpus."""
    stats: Mapping[str, Any]
    vocab_size: int
    samples: Sequence[Continuation]


def figures(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics that belong to the model; times do not, so equal trainings have equal cards."""
    return chosen(stats, names(TrainStats, Show.CARD))


def write_card(facts: Facts) -> str:
    """The content of ``README.md``."""
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
        "next token right": f"{stats['valid_accuracy']:.1%}",
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
        "baseline: which token follows which": f"{stats['bigram_loss']:.4f}",
        "baseline: every token alike": f"{math.log(vocab_size):.4f}",
        "bits per byte": f"{stats['bits_per_byte']:.4f}",
        "perplexity": f"{stats['perplexity']:.2f}",
    }


def _regression(stats: Mapping[str, Any]) -> dict[str, str]:
    return {
        "validation loss (squared distance to the next embedding)": f"{stats['valid_loss']:.4f}",
        "baseline: the mean embedding": f"{stats['mean_vector_loss']:.4f}",
        "baseline: the most frequent token, right": f"{stats['unigram_accuracy']:.1%}",
    }


def _configuration(config: Config) -> str:
    chosen = config.model_dump(mode="json", include={"preset", "tokenize", "windows", "model", "train"})
    return f"## Configuration\n\n{_verbatim(json.dumps(chosen, indent=2, ensure_ascii=False))}\n"


def _samples(samples: Sequence[Continuation]) -> str:
    texts = [f"Prompt:\n\n{_verbatim(each.prompt)}\n\ngoes on:\n\n{_verbatim(each.text)}\n" for each in samples]
    return "\n".join(["## Samples\n", *texts])


def _verbatim(text: str) -> str:
    """`text` as a code block; by indentation, since it may hold any fence."""
    return textwrap.indent(text or "(nothing)", "    ", lambda _: True)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
