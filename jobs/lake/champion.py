"""The pointer to the promoted model that is in use."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join


@dataclass(frozen=True)
class Champion:
    """The folder of a model, and the id of the run that made it."""

    model_uri: str
    run_id: str


def read_champion(home: Lake) -> Champion | None:
    """The model that is in use, if there is one.

    Raises:
        DamagedError: if the pointer points to nothing.
    """
    try:
        pointer = store.read_json(home.champion)
        return Champion(join(home.models, str(pointer["model"])), str(pointer["run_id"]))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError):
        raise DamagedError(
            f"{home.champion}: does not name a model and its run; delete it and promote a run again"
        ) from None
