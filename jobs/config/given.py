"""The settings that a person gives for a run: in a configuration file, in the environment, and on the command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.config import RUN_KEYS, environment_settings, flat_schema, parse_settings, unknown_key, variable_name
from jobs.errors import InputError, shorten
from jobs.lake.uri import to_uri

PIPELINE = "pipeline"
"""Name of the table in a pipeline's file that says when Airflow runs the pipeline."""


@dataclass(frozen=True)
class Given:
    """The settings that a person gives, by dotted key.

    The command line wins over the environment, and the environment wins over the file.
    """

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """For each setting, the file or environment variable that sets it. Settings from the command line have no entry."""
    from_environment: dict[str, Any] = field(default_factory=dict)
    corpus: str | None = None
    """The text to train on, if the configuration file names it."""
    preset: str | None = None


def gather(
    config_file: str | None,
    settings: Iterable[str],
    read_bytes: Callable[[str], bytes],
    environ: Mapping[str, str] = os.environ,
) -> Given:
    """Return the settings of a configuration file, overridden by the environment, then by ``key=value`` settings.

    `read_bytes` returns the content of the file at a URI.

    Raises:
        InputError: if the file or a key is wrong.
    """
    of_file = read_config_file(config_file, read_bytes) if config_file is not None else {}
    run = {key: of_file.pop(key, None) for key in RUN_KEYS}
    of_environment, chosen = environment_settings(environ), parse_settings(settings)
    places = {
        **dict.fromkeys(of_file, config_file or ""),
        **{key: variable_name(key) for key in of_environment},
    }
    return Given(
        {**of_file, **of_environment, **chosen},
        {key: place for key, place in places.items() if key not in chosen},
        of_environment,
        **run,
    )


def read_config_file(path: str, read_bytes: Callable[[str], bytes]) -> dict[str, Any]:
    """Return the settings and `RUN_KEYS` in a TOML file, as a dict from dotted key to value.

    A table of the file is a section. The file of a pipeline can be read as well. Its table ``[pipeline]`` is only for
    Airflow and is ignored here.

    Raises:
        InputError: if the file is wrong. The message names the file, and the line or key.
    """
    try:
        data = read_bytes(to_uri(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or 'no such file'}); check --config-file") from None
    table = parse_toml(path, data)
    table.pop(PIPELINE, None)
    return settings_of(path, table)


def parse_toml(path: str, data: bytes) -> dict[str, Any]:
    """Parse the content of a TOML file. If it is wrong, raise an InputError that names the file and the line."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = shorten(error)
        raise InputError(f"{path}: not TOML ({reason[:1].lower()}{reason[1:]})") from None
    except ValueError:  # of Python's `int`, whose message names neither line nor value
        raise InputError(f"{path}: a number has more digits than can be read; write a smaller one") from None


def settings_of(path: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings and `RUN_KEYS` in a parsed TOML table, as a dict from dotted key to value.

    Raises:
        InputError: if a key is unknown. The message names the file `path`.
    """
    known = flat_schema().keys() | set(RUN_KEYS)
    values = dict(_flatten(table, known))
    for key in values:
        if key not in known:
            raise InputError(f"{path}: {unknown_key(key)}")
    return values | {key: _text(path, key, values[key]) for key in RUN_KEYS if key in values}


def _flatten(table: Mapping[str, Any], known: Iterable[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and values of nested tables.

    An empty table that is not a section is yielded as a value, so that its key is reported as unknown.
    """
    for name, value in table.items():
        key = f"{prefix}{name}"
        is_section = any(each.startswith(f"{key}.") for each in known)
        if isinstance(value, dict) and key not in known and (value or is_section):
            yield from _flatten(value, known, f"{key}.")
        else:
            yield key, value


def _text(path: str, key: str, value: object) -> str:
    """Return the value of one of `RUN_KEYS` as text. If a corpus is a list of places, return a line for each place."""
    listed = value if isinstance(value, list) and key == "corpus" else [value]
    places = [place for place in listed if isinstance(place, str) and place]
    if not places or len(places) < len(listed):
        raise InputError(f"{path}: {key}: input should be a valid string, got {shorten(repr(value))}")
    return "\n".join(places)
