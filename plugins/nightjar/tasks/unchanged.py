"""Find out whether a run would repeat an earlier run: the corpus, the code and the settings are the same.

The file `Pipeline.last` lists all successful runs of a pipeline since its corpus or code last changed, not only the
latest run (up to `MOST_RUNS`). So a trial with other settings between two nights does not hide that the second night
repeats the first.

Files of the corpus count as unchanged if their names, sizes and modification times are unchanged, so no file is read
here. A file that is written again counts as changed, even with the same content.
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
"""What a run is made of: a dict with the keys `corpus`, `code` and `settings`, and a hash for each."""
_SHARED = ("corpus", "code")
"""The keys of the hashes that all runs in the file `Pipeline.last` have in common."""
MOST_RUNS = 100
"""Maximum number of runs in the file `Pipeline.last`. A sweep over settings has many runs."""


def describe(config: Config, run: Run, sources: Sequence[Source], package_root: Path) -> MadeOf:
    """Return the hashes of a run's corpus, code and settings."""
    files = [[source.name, source.size, source.modified_at] for source in sources]
    corpus = {"files": files, "forgotten": sources[0].forgotten}
    return {
        "corpus": hashlib.sha256(json.dumps(corpus).encode()).hexdigest(),
        "code": build(package_root).sha256,
        "settings": Owner.of(run, config).config_sha256,
    }


def find_same(run: Run, made_of: MadeOf, store: Store) -> str | None:
    """Return the folder of another successful run of the pipeline with the same hashes, or None.

    Only runs since the last change of the corpus or the code are compared.
    """
    same = _read(Pipeline.of(run), made_of, store).get(made_of["settings"])
    return same if same != run.folder else None


def record(run: Run, made_of: MadeOf, store: Store) -> None:
    """Record in `Pipeline.last` that a run with these hashes was successful."""
    pipeline = Pipeline.of(run)
    runs = {**_read(pipeline, made_of, store), made_of["settings"]: run.folder}
    latest = dict(list(runs.items())[-MOST_RUNS:])
    about = {name: made_of[name] for name in _SHARED}
    store.write_json(pipeline.last, {**about, "runs": latest, "time": utc_now()})


def _read(pipeline: Pipeline, made_of: MadeOf, store: Store) -> dict[str, str]:
    """Return the successful runs with the corpus and code of `made_of`, as a dict from hash of settings to folder.

    Return {} if the file `Pipeline.last` is missing or damaged. The current run is then not skipped.
    """
    try:
        last = store.read_json(pipeline.last)
        is_same = all(last[name] == made_of[name] for name in _SHARED)
        return {str(settings): str(run) for settings, run in last["runs"].items()} if is_same else {}
    except FileNotFoundError:
        return {}
    except (NightjarError, LookupError, TypeError, AttributeError) as error:
        log.warning("%s: the record of earlier runs cannot be read (%s); this run continues", pipeline.last, error)
        return {}
