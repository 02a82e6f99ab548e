"""Finds earlier runs on the same corpus, whose vocabulary a run may inherit (``tokenize.tokenizer=inherit``).

Airflow's preflight makes the same search, so only small files are read. `jobs.datasets.reuse` then opens the datasets.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from jobs.config import Config
from jobs.errors import InputError
from jobs.lake.champion import champions_pipeline, read_champion
from jobs.lake.layout import Lake, Pipeline, Run
from jobs.lake.manifest import Manifest
from jobs.lake.models import TOKENIZER
from jobs.lake.runs import all_runs, used_datasets
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import join
from jobs.sources.inputs import INHERIT, model_to_start_from

MOST_EARLIER = 50
"""How many runs of the lake are searched, from the latest backwards."""


def earlier_runs(lake: Lake, corpus: str, of: Run, store: Store = ENVIRONMENT) -> Iterator[tuple[str, str, Manifest]]:
    """Yield the run id of each run on `corpus` that has a dataset of tokens, with the dataset's URI and manifest.

    The latest run comes first. The run `of` is left out: it is the run for which the caller searches. Only the latest
    `MOST_EARLIER` runs of the lake are searched, because each takes several requests to the lake.
    """
    others = (run for run in all_runs(lake, store) if run != of)
    written = [(found.modified_at, run.folder, run) for run in others if (found := store.info(run.datasets))]
    for *_, run in sorted(written, key=itemgetter(0, 1), reverse=True)[:MOST_EARLIER]:
        tokens = used_datasets(run, store).get("tokens") if _corpus_of(run, store) == corpus else None
        manifest = store.read_manifest(uri := lake.dataset("tokens", tokens)) if tokens else None
        if manifest and "how" in manifest.inputs:
            yield run.run_id, uri, manifest


def inherited_pipeline(run: Run, config: Config) -> Pipeline:
    """Return the pipeline from whose champion a run inherits its vocabulary.

    This is the pipeline that `train.init` names. If `train.init` names none, it is the run's own pipeline.
    """
    start = model_to_start_from(config.train.init or "")
    return champions_pipeline(start, Lake(run.lake_uri)) or Pipeline.of(run)


def inherits(run: Run, config: Config, store: Store = ENVIRONMENT) -> bool:
    """Return whether a run takes its vocabulary from a champion or from an earlier run."""
    if config.tokenize.tokenizer != INHERIT or not config.trains:
        return False
    champion, _ = read_champion(inherited_pipeline(run, config), store)
    if champion and store.exists(join(champion.model_uri, TOKENIZER)):
        return True
    return any(True for _ in earlier_runs(Lake(run.lake_uri), config.corpus, run, store))


def _corpus_of(run: Run, store: Store) -> str | None:
    try:
        return Config.from_json(store.read_bytes(run.config).decode(), run.config).corpus
    except (FileNotFoundError, InputError):  # written by a version with other settings
        return None
