"""The optional embed step: trains token vectors. Publishes ``<lake>/datasets/embeddings/<fingerprint>/``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jobs.config import Config
from jobs.datasets.fixed_side_hashes import hash_dataset_sides
from jobs.datasets.fixed_sides import read_decisions
from jobs.datasets.publish import find_or_make
from jobs.datasets.tokens import TokensDataset
from jobs.embeddings.train import make_embeddings
from jobs.engine.base import Engine
from jobs.fingerprint import code_version, fingerprint
from jobs.lake.layout import Pipeline, Run


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make the embeddings of a run's tokens, or use existing ones; return their statistics."""
    settings = config.embed
    tokens = TokensDataset.of_run(run)
    decided = read_decisions(Pipeline.of(run)) if config.windows.split == "fixed" else None
    name = fingerprint(
        kind="embeddings",
        tokens=tokens.fingerprint,
        settings=settings.model_dump(),
        code=code_version(__name__),
        **({"sides": hash_dataset_sides(tokens, decided, engine)[0]} if decided else {}),
    )
    make = partial(make_embeddings, tokens=tokens, settings=settings, engine=engine, progress=progress, decided=decided)
    stats = find_or_make(run, "embeddings", name, make)
    progress(
        f"embeddings: {stats['num_vectors']:,} vectors of {stats['size']} numbers"
        f"{', reused' if stats['reused'] else ''}"
    )
    return stats
