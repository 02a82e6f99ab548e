"""What a run is made of: its corpus, its code and its settings. A night of the same as the last one has nothing to do.

The successful runs of a pipeline since its text or its code has changed are recorded in `Pipeline.last`, so that a
trial with other settings in between does not make the next night work. Files of the corpus count as the same if their
names, sizes and times of the last change are the same, so nothing is read here. A file that is written anew counts as
changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.config import Config
from jobs.config.of_run import Owner
from jobs.errors import NightjarError
from jobs.lake.champion import utc_now
from jobs.lake.layout import Pipeline, Run
from jobs.lake.store import Store
from jobs.sources.listing import Source
from nightjar.packaging.build import build

log = logging.getLogger(__name__)

MadeOf = Mapping[str, str]
"""The hashes of the corpus, of the code and of the settings, by these names."""
_SHARED = ("corpus", "code")
"""What the runs of a record have in common."""
MOST_RUNS = 100
"""How many runs a record has at the most: a sweep has many."""


def describe(config: Config, run: Run, sources: Sequence[Source], package_root: Path) -> MadeOf:
    """Return what a run is made of."""
    files = [[source.name, source.size, source.modified_at] for source in sources]
    corpus = {"files": files, "forgotten": sources[0].forgotten}
    return {
        "corpus": hashlib.sha256(json.dumps(corpus).encode()).hexdigest(),
        "code": build(package_root).sha256,
        "settings": Owner.of(run, config).config_sha256,
    }


def find_same(run: Run, made_of: MadeOf, store: Store) -> str | None:
    """Return the folder of a successful run of the pipeline that is made of the same, if it is another run; else None.

    It is looked for among the runs since the text or the code has changed last.
    """
    same = _read(Pipeline.of(run), made_of, store).get(made_of["settings"])
    return same if same != run.folder else None


def record(run: Run, made_of: MadeOf, store: Store) -> None:
    """Record that a run was successful, and what it was made of."""
    pipeline = Pipeline.of(run)
    runs = {**_read(pipeline, made_of, store), made_of["settings"]: run.folder}
    latest = dict(list(runs.items())[-MOST_RUNS:])
    about = {name: made_of[name] for name in _SHARED}
    store.write_json(pipeline.last, {**about, "runs": latest, "time": utc_now()})


def _read(pipeline: Pipeline, made_of: MadeOf, store: Store) -> dict[str, str]:
    """Return the successful runs of a pipeline with this text and this code, by the hash of their settings.

    A record that is missing or damaged counts as one without runs: the run then does its work.
    """
    try:
        last = store.read_json(pipeline.last)
        is_same = all(last[name] == made_of[name] for name in _SHARED)
        return {str(settings): str(run) for settings, run in last["runs"].items()} if is_same else {}
    except FileNotFoundError:
        return {}
    except (NightjarError, LookupError, TypeError, AttributeError) as error:
        log.warning("%s: does not tell what the last runs were made of (%s); this run goes on", pipeline.last, error)
        return {}
