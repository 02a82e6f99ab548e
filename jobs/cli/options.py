"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

from typer import Option

EngineName = Literal["inline", "spark"]


def complete_preset() -> list[str]:
    """Return the names of the presets, for completion in a shell."""
    from jobs.config import preset_names

    return preset_names()


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Return the settings that start with `incomplete` and their descriptions, for completion in a shell."""
    from jobs.config import flat_schema

    return [(f"{key}=", schema["description"]) for key, schema in flat_schema().items() if key.startswith(incomplete)]


Attempt = Annotated[
    int | None,
    Option(
        metavar="N",
        min=1,
        help="Number of this attempt at the step; needs --config. However the step ends, its outcome is written to"
        " steps/STEP/N/outcome.json in the run's folder.",
    ),
]
Config = Annotated[str | None, Option(metavar="URI", help="The config.json of an existing run.")]
ConfigFile = Annotated[
    str | None,
    Option(metavar="FILE", help="TOML file with settings: [train] seed = 7. It may name corpus and preset, too."),
]
Corpus = Annotated[
    list[str] | None,
    Option(
        metavar="PLACE",
        help="Text to train or evaluate on: a file, folder or pattern of .txt, .jsonl or .parquet files, as a path,"
        " file:///... or s3://... Repeat the option for several places.",
        show_default=False,
    ),
]
Engine = Annotated[EngineName, Option(help="Where tasks run: in processes on this machine (inline), or on Spark.")]
Lake = Annotated[
    str,
    Option(metavar="PLACE", envvar="NIGHTJAR_LAKE", help="Folder of runs and models: path, file:///... or s3://..."),
]
Master = Annotated[
    str | None,
    Option(metavar="URL", help="Spark master. Default: that of spark-submit, else spark.master, else this machine."),
]
Model = Annotated[
    str,
    Option(metavar="MODEL", help="Model folder or .zip, id or folder of a run, or 'champion'.", show_default=False),
]
Owner = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Owner of the run's lock, such as a cluster. A lock that an earlier process of the same owner left behind"
        " is taken over at once. Default: this process.",
    ),
]
Preset = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Settings to start from. By size: tiny, demo, small, medium. By method: attention-dense, averaged-dense,"
        " embedding-regression, nesterov-regression, word2vec-attention. Default: demo.",
        autocompletion=complete_preset,
    ),
]
Project = Annotated[
    str,
    Option(
        metavar="NAME",
        envvar="NIGHTJAR_PROJECT",
        help="Name of the deployment, which is part of a run's path. Deployments that share a lake need different"
        " names.",
    ),
]
RunId = Annotated[
    str | None, Option(metavar="NAME", help="Name of the run; an existing run is continued. Default: manual-<time>.")
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Setting, such as train.seed=7. Repeat the option for several settings.",
        autocompletion=complete_setting,
    ),
]
