"""Step 2: from tokens to windows of training and validation. Publishes ``<lake>/datasets/windows/<fingerprint>/``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jobs.config import Config
from jobs.datasets.fixed_sides import find_growth
from jobs.datasets.fixed_split import decide_sides
from jobs.datasets.publish import find_or_make
from jobs.datasets.tokens import TokensDataset
from jobs.datasets.windowing import make_windows
from jobs.engine.base import Engine
from jobs.errors import counted
from jobs.fingerprint import code_version, fingerprint
from jobs.lake.layout import Pipeline, Run


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make the windows dataset of a run, or use an existing one; return its statistics."""
    settings = config.windows
    tokens = TokensDataset.of_run(run)
    decided = decide_sides(run, config, tokens, engine) if settings.split == "fixed" else None
    name = fingerprint(
        kind="windows",
        tokens=tokens.fingerprint,
        settings={**settings.model_dump(), "stride": settings.stride},  # its formula is not in the code version
        code=code_version(__name__),
        **({"sides": decided.digest} if decided else {}),
    )
    make = partial(make_windows, tokens=tokens, settings=settings, engine=engine, decided=decided)
    stats = find_or_make(run, "windows", name, make)
    if decided:
        stats |= {"num_new_documents": 0} | find_growth(Pipeline.of(run), run.folder)
    if stats["split_note"]:
        progress(f"windows: {stats['split_note']}")
    how = "fixed split" if stats["split"] == "fixed" else f"split by {stats['split']}"
    split = f"{stats['valid_window_share']:.1%}, {how}"
    if stats["num_cut_documents"]:
        split += f", {counted(stats['num_cut_documents'], 'document')} cut"
        split += f", {counted(stats['num_gap_tokens'], 'token')} left out at the cuts"
    progress(
        f"windows: {stats['num_train_windows']:,} for training, {stats['num_valid_windows']:,} for validation"
        f" ({split}), unigram loss {stats['unigram_loss']:.3f}, bigram {stats['bigram_loss']:.3f}"
        f"{', reused' if stats['reused'] else ''}"
    )
    return stats
