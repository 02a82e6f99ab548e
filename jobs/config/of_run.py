"""The configuration of a run in the lake: written once, except for the settings of the deployment.

``owner.json`` names the owner of the run. ``config.json`` has all settings of the first start. A later start by the
same owner keeps these settings. It replaces only the settings of the deployment (`DEPLOYMENT`), so that a wrong subnet
can be corrected. A start with other settings of the deployment than the previous start writes all of them to a file
``deployment-<n>.json``. The file with the highest number is in effect.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from operator import getitem
from typing import Any

from pydantic import ValidationError

from jobs.config import Config, first_wrong, flat_schema
from jobs.errors import InputError, reading
from jobs.lake.layout import Run
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import to_json

DEPLOYMENT = ("log_level", "budget", "spark", "cluster")
"""The settings of the deployment: `log_level`, and all settings of three sections. `train.device` is one as well."""
_DEVICE = "train.device"
_MOST_NAMED = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """The project, pipeline, run id and configuration to which a run's folder belongs."""

    project: str
    pipeline: str
    run_id: str
    config_sha256: str
    """Hash of all settings but those of the deployment."""

    @classmethod
    def of(cls, run: Run, config: Config) -> Owner:
        """Return the owner of a run with this configuration."""
        digest = hashlib.sha256(json.dumps(_settings(config), sort_keys=True).encode()).hexdigest()
        return cls(run.project, run.pipeline, run.run_id, digest)


def read_config(run: Run, store: Store = ENVIRONMENT) -> Config:
    """Return the configuration of a run, with the latest settings of the deployment.

    Raises:
        FileNotFoundError: if the run has no configuration.
    """
    return _with_deployment(run, _read_first(run, store), _latest_deployment(run, store)[1])


def claim(run: Run, config: Config, store: Store = ENVIRONMENT) -> Config:
    """Write the owner and the configuration of a run if it has none, and return the configuration of the run.

    If the run exists, only its settings of the deployment are updated (see `renew`).

    Raises:
        InputError: if the run has another owner or another configuration.
    """
    _check_owner(run, config, store)
    if run.project:  # runs of the earlier layout have no owner
        store.publish(run.owner, to_json(asdict(Owner.of(run, config)), run.owner))
    if store.publish(run.config, config.to_json().encode()):
        return config
    _check_owner(run, config, store)  # another program may have been faster
    return renew(run, config, store)


def renew(run: Run, config: Config, store: Store = ENVIRONMENT) -> Config:
    """Return the configuration of a run, with the settings of the deployment taken from `config`.

    If the settings of the deployment have changed, they are written to the lake. Other settings in `config` are
    ignored.

    Raises:
        InputError: if the settings of the deployment do not fit the run's other settings.
    """
    first = _read_first(run, store)
    while True:
        number, latest = _latest_deployment(run, store)
        before = _with_deployment(run, first, latest)
        if _deployment(before) == (deployment := _deployment(config)):
            return before
        after = _with_deployment(run, first, deployment)
        uri = run.deployment(number + 1)
        if store.publish(uri, to_json(deployment, uri)):
            log.info("%s: %s", uri, "; ".join(_differences(before, after, "before", "now")))
            return after


def _check_owner(run: Run, config: Config, store: Store) -> None:
    """Raise InputError if the run has another owner or another configuration."""
    mine = Owner.of(run, config)
    advice = "choose another run id (--run-id), or another NIGHTJAR_PROJECT if this is another deployment"
    try:
        with reading(run.owner, "delete it if the run is yours"):
            found = Owner(**json.loads(store.read_bytes(run.owner)))
    except FileNotFoundError:
        found = mine
    if (found.project, found.pipeline, found.run_id) != (mine.project, mine.pipeline, mine.run_id):
        raise InputError(
            f"{run.uri}: belongs to run {found.run_id!r} of pipeline {found.pipeline!r} in project {found.project!r},"
            f" not to run {mine.run_id!r} of pipeline {mine.pipeline!r} in project {mine.project!r}; {advice}"
        )
    try:
        stored = _read_first(run, store)
    except FileNotFoundError:
        is_same, differences = found == mine, list[str]()
    else:
        ignored = {key for key in flat_schema() if is_deployment(key) or not _has(stored, key)}
        differences = list(_differences(stored, config, "there", "here", ignored))
        is_same = not differences
    if not is_same:
        shown = f" ({', '.join(differences[:_MOST_NAMED])})" if differences else ""
        raise InputError(f"{run.uri}: this run exists with another configuration{shown}; {advice}")


def _read_first(run: Run, store: Store) -> Config:
    return Config.from_json(store.read_bytes(run.config).decode(errors="replace"), run.config)


def _latest_deployment(run: Run, store: Store) -> tuple[int, dict[str, Any] | None]:
    """Return the number of the last change of the deployment's settings, and the settings after that change.

    Return 0 and None if there was no change.
    """
    number, latest = 0, None
    while True:
        uri = run.deployment(number + 1)
        try:
            with reading(uri, "delete it and start the run again"):
                found = json.loads(store.read_bytes(uri))
                known = [
                    key for key in (*DEPLOYMENT, _DEVICE) if key in found or key != "budget"
                ]  # earlier versions did not write the section budget
                latest = {"chosen": list(found["chosen"]), **{key: found[key] for key in known}}
        except FileNotFoundError:
            return number, latest
        number += 1


def _with_deployment(run: Run, first: Config, deployment: Mapping[str, Any] | None) -> Config:
    """Return the configuration `first` with its settings of the deployment replaced by `deployment`.

    If `deployment` is None, return `first`.
    """
    if deployment is None:
        return first
    sections = {key: deployment[key] for key in DEPLOYMENT if key in deployment}
    train = {**first.train.model_dump(), "device": deployment[_DEVICE]}
    chosen = {key for key in first.chosen if not is_deployment(key)} | set(deployment["chosen"])
    try:
        return Config.model_validate({**first.model_dump(), **sections, "train": train, "chosen": sorted(chosen)})
    except ValidationError as error:
        reason = first_wrong(error)
    raise InputError(f"{run.uri}: the settings of this deployment do not fit the run's other settings: {reason}")


def _settings(config: Config) -> dict[str, Any]:
    """Return all settings but those of the deployment."""
    excluded: dict[str, Any] = {"chosen": True, **dict.fromkeys(DEPLOYMENT, True), "train": {"device"}}
    return config.model_dump(mode="json", exclude=excluded)


def _deployment(config: Config) -> dict[str, Any]:
    """Return the deployment settings. The key ``chosen`` lists those that a person has set."""
    chosen = [key for key in config.chosen if is_deployment(key)]
    sections = config.model_dump(mode="json", include=set(DEPLOYMENT))
    return {"chosen": chosen, **sections, _DEVICE: config.train.device}


def is_deployment(key: str) -> bool:
    """Return whether a setting belongs to the deployment. A retry takes such a setting from its own environment."""
    return key == _DEVICE or key.partition(".")[0] in DEPLOYMENT


def _has(stored: Config, key: str) -> bool:
    """Return whether a stored configuration has a setting.

    A configuration that an earlier version of Nightjar wrote lacks the settings that were added later.
    """
    *sections, name = key.split(".")
    return (
        all(section in stored.model_fields_set for section in sections)
        and name in reduce(getattr, sections, stored).model_fields_set
    )


def _differences(
    one: Config, other: Config, name_one: str, name_other: str, ignored: Collection[str] = ()
) -> Iterator[str]:
    """Yield a text for each setting that differs between `one` and `other`: ``train.seed is 1 there, 2 here``.

    In this example, `name_one` is "there" and `name_other` is "here". Keys in `ignored` are skipped.
    """
    values = [config.model_dump(mode="json") for config in (one, other)]
    for key in ("corpus", "preset", *flat_schema()):
        first, second = (reduce(getitem, key.split("."), each) for each in values)
        if first != second and key not in ignored:
            yield f"{key} is {json.dumps(first)} {name_one}, {json.dumps(second)} {name_other}"
