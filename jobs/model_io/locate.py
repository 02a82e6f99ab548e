"""Where a model is that a person names: a folder, a zip file, a run, or the champion."""

from __future__ import annotations

from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.champion import read_champion
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.uri import join, to_uri


def find_model(name: str, home: Lake) -> str:
    """The URI of the model folder or zip file that a person means by `name`.

    Raises:
        InputError: if there is none.
        DamagedError: if what should tell the champion does not.
    """
    if name == "champion":
        champion = read_champion(home)
        if champion is None:
            raise InputError(f"{home.champion}: no champion yet; name a run, or check --lake")
        return champion.model_uri
    uri = to_uri(name)
    if uri.endswith(".zip") and store.exists(uri):
        return uri
    places = [uri, join(uri, "model")]
    if "/" not in name:
        places.append(home.run(name).model)
    for place in places:
        if store.exists(join(place, MANIFEST)) and store.exists(join(place, "config.json")):
            return place
    raise InputError(f"{name}: no model there (looked in {', '.join(places)}); train one, or check --lake")
