"""The configuration of a run: its sections, the presets, and how settings are resolved.

Airflow's scheduler loads this package, so it imports nothing but pydantic and the standard library.
"""

from jobs.config.resolve import (
    STEPS,
    Config,
    flat_schema,
    override,
    parse_settings,
    parse_value,
    preset_names,
    resolve,
)
from jobs.config.sections.cluster import ClusterConfig, SparkConfig
from jobs.config.sections.data import EmbedConfig, TokenizeConfig, WindowsConfig
from jobs.config.sections.generate import GenerateConfig
from jobs.config.sections.model import ModelConfig
from jobs.config.sections.train import TrainConfig

__all__ = [
    "STEPS",
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
    "parse_value",
    "preset_names",
    "resolve",
]
