"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

EngineName = Literal["inline", "spark"]


def complete_preset() -> list[str]:
    """Return the names of the presets, for the completion of the shell."""
    from jobs.config import preset_names

    return preset_names()


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Return the settings that start with `incomplete` and their descriptions, for the completion of the shell."""
    from jobs.config import flat_schema

    return [(f"{key}=", schema["description"]) for key, schema in flat_schema().items() if key.startswith(incomplete)]


Config = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="URI",
        help="Configuration of the run: config.json in the run's folder.",
        show_default=False,
    ),
]
Engine = Annotated[
    EngineName,
    typer.Option("--engine", help="Engine of the step: processes of this machine (inline), or Spark."),
]
Lake = Annotated[
    str,
    typer.Option(
        "--lake",
        metavar="PLACE",
        envvar="NIGHTJAR_LAKE",
        help="Folder of datasets, runs and models: a path, file:///... or s3://...",
    ),
]
Master = Annotated[
    str | None,
    typer.Option(
        "--master",
        metavar="URL",
        help="Spark master, such as spark://host:7077. Default: the setting spark.master, else spark-submit's.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Model: its folder or .zip file, the id or folder of a run, or 'champion'.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Setting, such as train.seed=7. Repeat the option for several settings.",
        autocompletion=complete_setting,
    ),
]
