"""Location of a model by a name: a folder, a zip file, a run, or the champion."""

from __future__ import annotations

from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.champion import read_champion
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.uri import join, to_uri


def find_model(name: str, lake: Lake) -> str:
    """Return the URI of the model folder or zip file with a name.

    Args:
        name: A folder, a zip file, the id of a run, or ``champion``.
        lake: The lake of the runs and of the champion.

    Raises:
        InputError: if there is no such model.
        DamagedError: if the pointer to the champion is damaged.
    """
    if name == "champion":
        champion, _ = read_champion(lake)
        if champion is None:
            raise InputError(f"{lake.champion}: no champion yet; give the id of a run, or check --lake")
        return champion.model_uri
    uri = to_uri(name)
    if uri.endswith(".zip") and store.exists(uri):
        return uri
    candidates = [uri, join(uri, "model")]
    if "/" not in name:
        candidates.append(lake.run(name).model)
    for candidate in candidates:
        if store.exists(join(candidate, MANIFEST)) and store.exists(join(candidate, "config.json")):
            return candidate
    raise InputError(f"{name}: no model found (looked in {', '.join(candidates)}); train one, or check --lake")
