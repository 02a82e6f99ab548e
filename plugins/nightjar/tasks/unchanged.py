"""What a run is made of: its corpus, its code and its settings. A night of the same as the last one has nothing to do.

The last successful run of a pipeline is recorded in `Pipeline.last`. Files of the corpus count as the same if their
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


def describe(config: Config, run: Run, sources: Sequence[Source], package_root: Path) -> MadeOf:
    """Return what a run is made of."""
    files = [[source.name, source.size, source.modified_at] for source in sources]
    return {
        "corpus": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        "code": build(package_root).sha256,
        "settings": Owner.of(run, config).config_sha256,
    }


def find_same(run: Run, made_of: MadeOf, store: Store) -> str | None:
    """Return the folder of the pipeline's last successful run, if it is another run, made of the same; else None.

    A record that is missing or damaged counts as none: the run then does its work.
    """
    pipeline = Pipeline.of(run)
    try:
        last = store.read_json(pipeline.last)
        same = dict(last["made_of"]) == dict(made_of) and last["run"] != run.folder
        return str(last["run"]) if same else None
    except FileNotFoundError:
        return None
    except (NightjarError, LookupError, TypeError, ValueError) as error:
        log.warning("%s: does not tell what the last run was made of (%s); this run goes on", pipeline.last, error)
        return None


def record(run: Run, made_of: MadeOf, store: Store) -> None:
    """Record that a run was successful, and what it was made of."""
    store.write_json(Pipeline.of(run).last, {"run": run.folder, "made_of": dict(made_of), "time": utc_now()})
