"""Settings of a run from environment variables: ``NIGHTJAR_TRAIN_BATCH_SIZE=64`` is ``train.batch_size=64``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from jobs.config.resolve import flat_schema, parse_value
from jobs.errors import InputError

PREFIX = "NIGHTJAR_"


def environment_settings(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the settings that variables ``NIGHTJAR_<SECTION>_<KEY>`` give, by their dotted keys.

    Variables that are empty or blank count as absent. A value is JSON or text, as for ``--set``.

    Raises:
        InputError: naming a variable of a section that has no such key.
    """
    keys = {variable_name(key): key for key in flat_schema()}
    sections = tuple({f"{PREFIX}{key.partition('.')[0].upper()}_" for key in keys.values() if "." in key})
    settings = {}
    for name, text in sorted(environ.items()):
        if name in keys and text.strip():
            settings[keys[name]] = parse_value(text)
        elif name.startswith(sections) and name not in keys:
            close = get_close_matches(name, keys, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"{name}: no setting has this variable{hint}")
    return settings


def variable_name(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return PREFIX + key.replace(".", "_").upper()
