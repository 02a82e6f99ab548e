"""The champion: the promoted model that is in use. `Lake.champion` is the file that points to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jobs.errors import DamagedError
from jobs.lake.layout import Lake
from jobs.lake.names import below
from jobs.lake.plain_json import to_json
from jobs.lake.store import ENVIRONMENT, Store


@dataclass(frozen=True)
class Champion:
    """A promoted model: its folder, the run that trained it, and the metrics that it was judged by."""

    model_uri: str
    run_id: str
    metrics: dict[str, Any]


def format_champion(model: str, run_id: str, metrics: dict[str, Any]) -> bytes:
    """Return the content of the champion's file. `model` is the name of a folder in `Lake.models`."""
    return to_json({"model": model, "run_id": run_id, **metrics}, f"champion {model}")


def read_champion(lake: Lake, store: Store = ENVIRONMENT) -> tuple[Champion | None, str]:
    """Return the champion, and the version of its file, which `Store.replace` takes; None and "" if there is none."""
    try:
        data, version = store.read_version(lake.champion)
        values = json.loads(data)
        return Champion(below(lake.models, values.pop("model")), str(values.pop("run_id")), values), version
    except FileNotFoundError:
        return None, ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedError(
            f"{lake.champion}: does not name a model and its run; delete it and promote a run again"
        ) from None
