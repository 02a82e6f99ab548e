"""Text from a trained model, on the command line: ``python -m jobs sample --model RUN --prompt TEXT``."""

from __future__ import annotations

import argparse
import logging
import sys

from jobs.model.continuation import Settings
from jobs.model.folder import load_model
from jobs.model.generation import Request, generate
from jobs.model.inference import InferenceLlama
from jobs.model.places import find_model
from jobs.model.sampling import Sampling
from jobs.paths import Lake, to_uri

log = logging.getLogger(__name__)


def sample(options: argparse.Namespace) -> None:
    """Print prompt and continuation to stdout, all else to stderr."""
    model, tokenizer = load_model(find_model(options.model, Lake(to_uri(options.lake))))
    settings = Settings(
        max_new_tokens=options.max_new_tokens,
        sampling=Sampling(temperature=options.temperature, top_k=options.top_k),
        seed=options.seed,
    )
    generated = generate(InferenceLlama(model), tokenizer, [Request(options.prompt)], settings)
    sys.stdout.write(f"{options.prompt}{generated.samples[0].text}\n")
    log.info("%.0f tokens/s", generated.tokens_per_second)
