"""The pipelines of a deployment: each file ``<name>.toml`` in the folder ``NIGHTJAR_PIPELINES`` makes a DAG.

A file has the settings of the pipeline's runs, in the format of a ``--config-file``. Its table ``[pipeline]`` says when
runs start, and has the other options of the DAG. The pipeline `DEFAULT` is the DAG `train_llm`. It needs no file,
because ``NIGHTJAR_SCHEDULE`` and ``NIGHTJAR_CORPUS`` can configure it.

Airflow parses DAGs often, so only local files are read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from airflow.sdk import Asset, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowException
from croniter import CroniterError, croniter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from jobs.config import Config, environment_settings, resolve
from jobs.config.given import PIPELINE, parse_toml, settings_of
from jobs.errors import InputError, shorten
from jobs.lake.identity import DEFAULT, LOCAL, is_project
from nightjar.notifications import Notification
from nightjar.settings import DAG_ID, Settings

SUFFIX = ".toml"
MOST_CHARACTERS = 1000
"""Maximum length of a line about a mistake. Longer lines are shortened: a path, key or value can have any length."""
DEFAULT_PRESET: str = Config.model_fields["preset"].default
DESCRIPTION = "Train a language model on an EMR cluster that exists only for the run"
_RESERVED = {
    LOCAL: "the pipeline of runs without Airflow",
    "runs": "a folder of the lake",
    DAG_ID: f"the DAG of the pipeline {DEFAULT}, whose file is {DEFAULT}{SUFFIX}",
}
_DAG_IDS = re.compile(r"""\bDAG\(\s*(?:dag_id\s*=\s*)?["']([^"']+)["']|\bdag_id\s*=\s*["']([^"']+)["']""")
_ABSOLUTE = re.compile(r"\s*([/~\[]|[a-z0-9]+:)")
"""Matches the beginning of a place, or of a list of places, that does not depend on the working directory."""
_NO_RUN_AT_ONCE = timedelta(0)
"""With this value, a new DAG waits for its next scheduled time. By default, Airflow starts a run at once if a scheduled
time has just passed."""


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("not a time zone; write a name such as UTC or Europe/Berlin") from None
    return name


def check_cron(text: str) -> str:
    """Return `text` if it is a cron expression that matches some time, else raise ValueError."""
    try:
        timetable = CronTriggerTimetable(text, timezone="UTC")
        timetable.validate()
        croniter(timetable.expression).get_next()
    except (AirflowException, CroniterError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"not a cron expression ({reason}); write one such as '0 2 * * *'") from None
    return text


class PipelineTable(BaseModel):
    """The table ``[pipeline]`` of a pipeline's file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    schedule: Annotated[str, AfterValidator(check_cron)] | None = None
    """Cron expression, such as ``0 2 * * *`` for every night at 2. Without it, only people, assets and other DAGs start
    runs."""
    timezone: Annotated[str, AfterValidator(_check_timezone)] = "UTC"
    """Time zone of the schedule, such as ``Europe/Berlin``. No nightly run is left out or repeated when summer time
    begins or ends."""
    assets: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names or URIs of Airflow's assets. An update of any of them starts a run, in addition to the schedule."""
    description: str = DESCRIPTION
    """One line for the list of DAGs."""
    tags: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    """Tags of the DAG besides ``nightjar``."""
    max_active_runs: int = Field(1, ge=1, le=1000, strict=True)
    """Maximum number of runs at the same time. Each run has its own cluster. Runs that may promote a model wait for
    each other, so values above 1 only let experiments run beside them."""
    skip_unchanged: Literal["scheduled", "all", "never"] = "scheduled"
    """Which runs are skipped if their text, code and settings are those of an earlier successful run. A skipped run
    starts no cluster and costs nothing. `scheduled`: runs that start automatically. `all`: also runs that people start.
    `never`: no runs."""
    notify: tuple[Notification, ...] = ()
    """Notifications about failed runs, promotions, rejections and budgets. Airflow's notifiers send them."""
    max_wait_hours: float = Field(24, gt=0, le=24 * 366)
    """Longest time, in hours, that a run waits for another run of the pipeline if both may promote a model. After
    this time, the waiting run fails, and the message names the other run."""


@dataclass(frozen=True)
class PipelineConfig:
    """A pipeline: when its runs start, and which settings they take."""

    name: str
    path: Path | None = None
    """The pipeline's file. None if it has no file."""
    table: PipelineTable = field(default_factory=PipelineTable)
    corpus: str | None = None
    preset: str = DEFAULT_PRESET
    values: Mapping[str, Any] = field(default_factory=dict)
    """The settings in the file, by their dotted keys."""
    wrong: str = ""
    """What is wrong with the file, in one line, or "" if nothing is. The DAG of a wrong file still exists, so that runs
    in progress can end their clusters. But the DAG has no schedule, and new runs of it fail in `preflight`."""

    @property
    def dag_id(self) -> str:
        """The id of the pipeline's DAG."""
        return DAG_ID if self.name == DEFAULT else self.name

    @property
    def is_automatic(self) -> bool:
        """Whether runs start automatically."""
        return self.table.schedule is not None or bool(self.table.assets)

    def check(self) -> None:
        """Raise InputError if the file is wrong."""
        if self.wrong:
            raise InputError(self.wrong)

    def schedule(self) -> Any:
        """Return the schedule and the assets as the argument `schedule` of a DAG."""
        cron, zone, assets = self.table.schedule, self.table.timezone, self.table.assets
        updates = AssetAny(*map(_reference, assets)) if assets else None
        if cron is None:
            return updates
        times = CronTriggerTimetable(cron, timezone=zone, run_immediately=_NO_RUN_AT_ONCE)
        return times if updates is None else AssetOrTimeSchedule(timetable=times, assets=updates)


def find(name: str, settings: Settings) -> PipelineConfig:
    """Return the pipeline with this name. A pipeline without a file has no settings of its own."""
    path = _file_of(name, settings.pipelines) if settings.pipelines is not None and is_project(name) else None
    found = PipelineConfig(name) if path is None else _read(path)
    return _with_environment(found, settings) if name == DEFAULT else found


def load_all(settings: Settings, dags_folder: Path) -> tuple[list[PipelineConfig], list[str]]:
    """Return all pipelines in alphabetical order, and one line for each mistake in the folder and its files.

    Args:
        settings: The settings of the deployment.
        dags_folder: The folder of the other DAGs. A pipeline cannot have the id of one of these.
    """
    mistakes: list[str] = []
    names = {DEFAULT}
    files = _files(settings, mistakes)
    taken = _ids_of_dags(dags_folder) if files else {}
    for path in files:
        used = _file_of(path.stem, path.parent)
        if reason := _reason_against(path.stem, taken):
            mistakes.append(shorten(f"{path}: {reason}", MOST_CHARACTERS))
        elif used is not None and used != path:
            other = f"{path}: the pipeline {path.stem!r} has a second file, {used.name}; rename one of them"
            mistakes.append(shorten(other, MOST_CHARACTERS))
        else:
            names.add(path.stem)
    configs = [find(name, settings) for name in sorted(names)]
    return configs, [*mistakes, *(each.wrong for each in configs if each.wrong)]


def _files(settings: Settings, mistakes: list[str]) -> list[Path]:
    if settings.pipelines is None:
        return []
    try:
        found = sorted(settings.pipelines.iterdir())
    except OSError as error:
        mistakes.append(f"NIGHTJAR_PIPELINES: {settings.pipelines} cannot be listed ({error.strerror})")
        return []
    return [path for path in found if _is_pipeline(path)]


def _file_of(name: str, folder: Path) -> Path | None:
    """Return the file of a pipeline, or None. The suffix may be in upper or lower case."""
    usual = folder / f"{name}{SUFFIX}"
    if usual.is_file():
        return usual
    try:
        return min((path for path in folder.iterdir() if path.stem == name and _is_pipeline(path)), default=None)
    except OSError:
        return None


def _is_pipeline(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and not path.name.startswith(".") and path.is_file()


def _reason_against(name: str, taken: Mapping[str, Path]) -> str:
    """Return why a pipeline cannot have this name, or "". `taken` maps the ids of other DAGs to their files."""
    if name in _RESERVED:
        return f"the name {name!r} is reserved ({_RESERVED[name]}); rename the file"
    if not is_project(name):
        return (
            f"the name {name!r} cannot be the id of a DAG; use at most 63 letters, digits, '.', '_' or '-', and begin"
            " with a letter or digit"
        )
    if name in taken:
        return f"the DAG {name!r} exists already in {taken[name]}; rename the file"
    return ""


def _ids_of_dags(folder: Path) -> dict[str, Path]:
    """Return a dict from DAG id to Python file for a folder of DAGs. Only ids that are string literals are found."""
    ids = {}
    for path in folder.glob("*.py"):
        for found in _DAG_IDS.finditer(path.read_text("utf-8", errors="replace")):
            ids[found[1] or found[2]] = path
    return ids


def _read(path: Path) -> PipelineConfig:
    """Return the pipeline of a file. If the file is wrong, the pipeline's field `wrong` says why."""
    try:
        return _parse(path, path.read_bytes())
    except OSError as error:
        return PipelineConfig(path.stem, path, wrong=f"{path}: cannot be read ({error.strerror})")
    except InputError as error:
        return PipelineConfig(path.stem, path, wrong=shorten(error, MOST_CHARACTERS))


def _parse(path: Path, data: bytes) -> PipelineConfig:
    values = parse_toml(str(path), data)
    given = values.pop(PIPELINE, {})
    values = settings_of(str(path), values)
    corpus, preset = values.pop("corpus", None), values.pop("preset", DEFAULT_PRESET)
    table = _table(given, path)
    for place in (corpus or "").split("\n"):
        if place and not _ABSOLUTE.match(place):
            raise InputError(f"{path}: corpus: {place} is a relative path; write it in full, or as s3://bucket/prefix")
    config = PipelineConfig(path.stem, path, table, corpus, preset, values)
    resolved = _check_settings(config)
    if config.is_automatic and corpus is None and resolved.reads_text and config.name != DEFAULT:
        raise InputError(f"{path}: corpus: missing, but runs that start automatically need one; name it")
    return config


def _table(given: object, path: Path) -> PipelineTable:
    if not isinstance(given, dict):
        raise InputError(f"{path}: {PIPELINE}: must be a table; write [{PIPELINE}] and its keys below")
    try:
        return PipelineTable.model_validate(given)
    except ValidationError as error:
        [first, *_] = error.errors()
        key = shorten(".".join(map(str, (PIPELINE, *first["loc"]))))
        if first["type"] == "extra_forbidden":
            known = ", ".join(PipelineTable.model_fields)
            raise InputError(f"{path}: {key}: unknown key; [{PIPELINE}] takes {known}") from None
        message, got = first["msg"].removeprefix("Value error, "), shorten(repr(first["input"]))
        raise InputError(f"{path}: {key}: {message[0].lower()}{message[1:]}, got {got}") from None


def _check_settings(config: PipelineConfig) -> Config:
    """Return the configuration that the settings of a pipeline's file result in.

    Raise InputError if these settings are wrong. A mistake in the environment's settings is not an error here.
    """
    corpus, places = config.corpus or "file:///corpus", dict.fromkeys(config.values, str(config.path))
    try:
        return resolve(corpus, config.preset, {**config.values, **environment_settings()})
    except InputError:
        try:
            return resolve(corpus, config.preset, config.values, places)
        except InputError as error:
            where = str(config.path)
            raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _with_environment(config: PipelineConfig, settings: Settings) -> PipelineConfig:
    """Return the pipeline with the corpus and the schedule of the environment, which override those of its file."""
    table, wrong = config.table, config.wrong
    if settings.schedule is not None:
        try:
            table = table.model_copy(update={"schedule": check_cron(settings.schedule)})
        except ValueError as error:
            wrong = wrong or f"NIGHTJAR_SCHEDULE: {error}, got {settings.schedule!r}"
    if wrong:
        return replace(config, wrong=wrong)
    return replace(config, table=table, corpus=settings.corpus or config.corpus)


def _reference(asset: str) -> Any:
    """Return a reference to an asset that another DAG defines."""
    return Asset.ref(uri=asset) if "://" in asset else Asset.ref(name=asset)
