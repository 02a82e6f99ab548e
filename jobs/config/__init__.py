"""The configuration of a run: sections, presets, and how settings are resolved. Light: pydantic alone."""

from jobs.config.resolve import (
    ClusterConfig,
    Config,
    EmbedConfig,
    GenerateConfig,
    ModelConfig,
    SparkConfig,
    TokenizeConfig,
    TrainConfig,
    WindowsConfig,
    flat_schema,
    override,
    parse_settings,
    preset_names,
    resolve,
)

__all__ = [
    "ClusterConfig",
    "Config",
    "EmbedConfig",
    "GenerateConfig",
    "ModelConfig",
    "SparkConfig",
    "TokenizeConfig",
    "TrainConfig",
    "WindowsConfig",
    "flat_schema",
    "override",
    "parse_settings",
    "preset_names",
    "resolve",
]
