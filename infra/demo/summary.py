"""Summarize a finished run for the terminal: quality, speed, samples of text, and what to try next."""

from __future__ import annotations

import json

from jobs.config import STEPS
from jobs.lake.layout import Run
from jobs.lake.uri import join, local_path

NUM_SAMPLES = 3


def summary(run: Run) -> str:
    """Return the results of a run of the preset `demo` in a lake on this machine."""
    stats = json.loads(local_path(join(run.stats, "stats.json")).read_text("utf-8"))
    lines = [
        "",
        "Results",
        f"  validation loss   {stats['valid_loss']:.3f} nats per token (unigram baseline: {stats['unigram_loss']:.3f})",
        f"  bits per byte     {stats['bits_per_byte']:.3f}",
        f"  accuracy          {stats['valid_accuracy']:.1%} of next tokens predicted",
        f"  model             {stats['num_parameters']:,} parameters",
        f"  training speed    {stats['tokens_per_second']:,.0f} tokens/s",
        "  seconds           " + ", ".join(f"{step} {seconds:.0f}" for step, seconds in stats["seconds"].items()),
    ]
    reused = [step for step in STEPS if stats["steps"].get(step, {}).get("reused")]
    if reused:
        lines.append(f"  reused            {', '.join(reused)} (text, settings and code are unchanged)")
    lines += ["", "Generated text", *_samples(run), "", "Next", *_next_commands(run)]
    return "\n".join(lines)


def _samples(run: Run) -> list[str]:
    text = local_path(join(run.generate, "samples.jsonl")).read_text("utf-8")
    samples = [json.loads(line) for line in text.splitlines()[:NUM_SAMPLES]]
    texts = ((sample["prompt"] + sample["text"]).replace("\n", "\n     ") for sample in samples)
    return [f"  {number}. {text}" for number, text in enumerate(texts, 1)]


def _next_commands(run: Run) -> list[str]:
    lake = local_path(run.lake_uri)
    return [
        "  continue a text of yours",
        f'    .venv/bin/nightjar sample --lake "{lake}" --model {run.run_id} --prompt "My lord,"',
        "  read the report",
        f"    {local_path(join(run.stats, 'stats.txt'))}",
        "  train on your own text",
        "    make demo CORPUS=path/to/text.txt",
    ]
