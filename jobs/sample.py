"""Text from a trained model, on the command line: ``python -m jobs sample --model RUN --prompt TEXT``."""

from __future__ import annotations

import argparse
import logging
import sys

from jobs import lake
from jobs.errors import InputError
from jobs.model.continuation import Settings
from jobs.model.folder import load_model
from jobs.model.generation import Request, generate
from jobs.model.inference import InferenceLlama
from jobs.model.sampling import Sampling
from jobs.paths import MANIFEST, Lake, join, to_uri

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


def find_model(name: str, home: Lake) -> str:
    """The URI of the model folder that a person means by `name`.

    Raises:
        InputError: if there is none.
    """
    if name == "champion":
        try:
            return join(home.models, lake.read_json(home.champion)["model"])
        except FileNotFoundError:
            raise InputError(f"{home.champion}: no champion yet; name a run, or check --lake") from None
    places = [to_uri(name), join(to_uri(name), "model")]
    if "/" not in name:
        places.append(home.run(name).model)
    for place in places:
        if lake.exists(join(place, MANIFEST)) and lake.exists(join(place, "model.safetensors")):
            return place
    raise InputError(f"{name}: no model there (looked in {', '.join(places)}); train one, or check --lake")
