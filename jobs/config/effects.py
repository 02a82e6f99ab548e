"""Conditions under which a setting acts (has an effect), and messages about settings that were set without effect.

A setting acts in every run, unless there is a condition for the setting or for its section. The descriptions of the
settings, `jobs run`, the steps and the preflight all use these conditions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from jobs.config.sections.promotion import PromotionConfig


@dataclass(frozen=True)
class Facts:
    """What is known about a run besides its settings. An attribute is None if the fact is not known.

    A condition that depends on an unknown fact counts as fulfilled.
    """

    engine: Literal["inline", "spark", "emr"] | None = None
    formats: frozenset[str] | None = None
    """Formats of the corpus: ``txt``, ``jsonl``, ``parquet``."""
    inherits: bool | None = None
    """Whether the run takes over an existing vocabulary (``tokenize.tokenizer=inherit``)."""
    split_seed: int | None = None
    """The value of ``windows.seed`` with which the pipeline's split was fixed. None also if the split is not fixed."""
    steps: tuple[str, ...] | None = None
    """The steps to run. None if these are all steps of the configuration."""


Holds = Callable[[BaseModel, Facts], bool]


@dataclass(frozen=True)
class Condition:
    """A condition under which a setting acts."""

    text: str
    """The condition as text that can follow "acts only with": ``train.schedule=wsd``."""
    holds: Holds


def value_of(config: BaseModel, key: str) -> Any:
    """Return the value of a setting, given by its dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _one_of(key: str, *values: object) -> Condition:
    shown = " or ".join(value if isinstance(value, str) else json.dumps(value) for value in values)
    return Condition(f"{key}={shown}", lambda config, _: value_of(config, key) in values)


def _above(key: str, limit: float) -> Condition:
    return Condition(f"{key} above {limit}", lambda config, _: value_of(config, key) > limit)


def _without(key: str) -> Condition:
    return Condition(f"{key} unset", lambda config, _: value_of(config, key) is None)


def _with(key: str) -> Condition:
    return Condition(f"{key} set", lambda config, _: value_of(config, key) is not None)


def _either(*conditions: Condition) -> Condition:
    text = ", or with ".join(condition.text for condition in conditions)
    return Condition(text, lambda *known: any(condition.holds(*known) for condition in conditions))


def _engine(*names: str) -> Condition:
    places = {"spark": "--engine spark", "emr": "a run of the DAG"}
    text = " or ".join(places[name] for name in names)
    return Condition(text, lambda _, facts: facts.engine is None or facts.engine in names)


def _learns(config: BaseModel, facts: Facts) -> bool:
    origin = value_of(config, "tokenize.tokenizer")
    return origin == "train" or (origin == "inherit" and not facts.inherits)


_LEARNS = Condition("a vocabulary that is learned (tokenize.tokenizer)", _learns)
_RECORDS = Condition(
    ".jsonl or .parquet files",
    lambda _, facts: facts.formats is None or not facts.formats.isdisjoint({"jsonl", "parquet"}),
)
_IS_TEXT = _one_of("tokenize.input", "text")
_UNITS = _one_of("tokenize.kind", "word", "char")
_TRANSFORMER = _one_of("model.kind", "transformer")
_IN_ROUNDS = _one_of("train.strategy", "average", "diloco")
_IN_STEPS = _either(_one_of("train.strategy", "allreduce"), _above("train.allreduce_steps", 0))
_DILOCO = _one_of("train.strategy", "diloco")
_ADAM = _one_of("train.optimizer", "adamw", "adam", "muon")
_MOMENTUM = _one_of("train.optimizer", "sgd", "muon")
_DRAWS = Condition(
    "generate.temperature of 1e-6 or more", lambda config, _: value_of(config, "generate.temperature") >= 1e-6
)
_EMBEDS = Condition(
    "train.embeddings=embed",
    lambda config, facts: "embed" in (facts.steps or ()) or value_of(config, "train.embeddings") == "embed",
)
_DECIDES = Condition(
    "windows.split=fixed in the first run of a pipeline",
    lambda config, facts: (
        value_of(config, "windows.split") == "fixed" and facts.split_seed in (None, value_of(config, "windows.seed"))
    ),
)
_PROMOTES = _one_of("promotion.enabled", True)
_SPOT = _above("cluster.task_instances", 0)
_OWN_CLUSTER = Condition(
    "a cluster that the run creates (cluster.job_flow_id unset)",
    lambda config, _: value_of(config, "cluster.job_flow_id") is None,
)
_TIMEOUT = Condition(
    "a value of at least train.step_timeout_seconds + 60",
    lambda config, _: (
        value_of(config, "train.gang_timeout_seconds") >= value_of(config, "train.step_timeout_seconds") + 60
    ),
)

RULES: dict[str, tuple[Condition, ...]] = {
    "tokenize.field": (_RECORDS,),
    "tokenize.drop_gutenberg": (_IS_TEXT,),
    "tokenize.normalize_nfc": (_IS_TEXT,),
    "tokenize.max_piece_bytes": (_one_of("windows.split", "fixed"),),
    "tokenize.drop_duplicates": (_one_of("tokenize.drop_near_duplicates", False),),
    "tokenize.kind": (_either(_LEARNS, _one_of("tokenize.input", "ids")),),
    "tokenize.lowercase": (_UNITS, _IS_TEXT, _LEARNS),
    "tokenize.min_frequency": (_UNITS, _LEARNS),
    "tokenize.vocab_size": (_LEARNS,),
    "tokenize.train_bytes": (_one_of("tokenize.kind", "bpe"), _LEARNS),
    "windows.seed": (_either(_one_of("windows.split", "auto", "source", "block", "hash"), _DECIDES),),
    "model.num_layers": (_TRANSFORMER,),
    "model.hidden_size": (_TRANSFORMER,),
    "model.hidden_sizes": (_one_of("model.kind", "context_mlp", "context_attention", "embedding_regression"),),
    "model.num_heads": (_one_of("model.kind", "transformer", "context_attention"),),
    "model.num_kv_heads": (_TRANSFORMER,),
    "model.positions": (_one_of("model.kind", "context_attention"),),
    "model.rope_theta": (
        _one_of("model.kind", "transformer", "context_attention"),
        _one_of("model.positions", "rotary"),
    ),
    "model.norm_epsilon": (_TRANSFORMER,),
    "train.epochs_of_new_text": (_with("train.init"),),
    "train.sync_every": (_IN_ROUNDS,),
    "train.outer_learning_rate": (_DILOCO,),
    "train.outer_momentum": (_DILOCO,),
    "train.delta_dtype": (_IN_ROUNDS,),
    "train.allreduce_steps": (_IN_ROUNDS,),
    "train.state_every": (_IN_ROUNDS,),
    "train.min_learning_rate_ratio": (_one_of("train.schedule", "linear", "cosine", "wsd"),),
    "train.decay_fraction": (_one_of("train.schedule", "wsd"),),
    "train.decay_per_epoch": (_one_of("train.schedule", "exponential"),),
    "train.weight_decay": (_one_of("train.optimizer", "adamw", "muon"),),
    "train.beta1": (_ADAM,),
    "train.beta2": (_ADAM,),
    "train.momentum": (_MOMENTUM,),
    "train.nesterov": (_MOMENTUM, _above("train.momentum", 0)),
    "train.checkpoint_every": (_IN_STEPS,),
    "train.checkpoint_seconds": (_IN_STEPS,),
    "train.max_rollbacks": (_one_of("train.on_divergence", "rollback"),),
    "train.max_loss_rise": (_IN_STEPS,),
    "train.gang_timeout_seconds": (_IN_STEPS, _TIMEOUT),
    "generate.prompts": (_without("generate.prompts_file"),),
    "generate.prompt_unit": (_with("generate.prompts_file"),),
    "generate.max_new_words": (_without("generate.max_new_tokens"),),
    "generate.top_k": (_DRAWS,),
    "generate.top_p": (_DRAWS,),
    "generate.min_p": (_DRAWS,),
    "generate.seed": (_DRAWS,),
    **{
        f"embed.{name}": (_EMBEDS,)
        for name in (
            *("size", "window", "negative", "epochs", "min_count", "subsample"),
            *("learning_rate", "workers", "sync_tokens", "seed"),
        )
    },
    **{f"promotion.{name}": (_PROMOTES,) for name in PromotionConfig.model_fields if name != "enabled"},
    "use.task": (_with("use.model"),),
    "spark.app_name": (_engine("spark", "emr"),),
    "spark.master": (_engine("spark"),),
    "spark.deploy_mode": (_engine("emr"),),
    "spark.executors": (_engine("spark", "emr"),),
    "spark.executor_cores": (_engine("spark", "emr"),),
    "spark.driver_memory": (_engine("spark", "emr"),),
    "spark.executor_memory": (_engine("spark", "emr"),),
    "spark.executor_overhead": (_engine("spark", "emr"),),
    "budget.usd": (_OWN_CLUSTER,),
    "budget.usd_month": (_OWN_CLUSTER,),
    "cluster.task_instance_types": (_SPOT,),
    "cluster.spot_timeout_minutes": (_SPOT,),
}
"""The conditions of each setting that does not act in every run. The setting acts if all its conditions hold."""

_ON_CLUSTERS = _engine("emr")
_TRAINS = _without("use.model")
_EVALUATES = _either(_TRAINS, _one_of("use.task", "evaluate"))
_GENERATES = _either(_TRAINS, _one_of("use.task", "generate"))
_OF_SECTIONS = {
    **dict.fromkeys(("budget", "cluster"), (_ON_CLUSTERS,)),
    **dict.fromkeys(("windows", "model", "train", "embed", "promotion"), (_TRAINS,)),
    "tokenize": (_EVALUATES,),
    "generate": (_GENERATES,),
}
"""A dict from a section to the conditions that all its settings share.

The descriptions of the settings do not mention these conditions, because most runs fulfil them.
"""
_OF_TOKENS = dict.fromkeys(
    (
        *("max_piece_bytes", "drop_duplicates", "drop_near_duplicates", "kind", "lowercase", "min_frequency"),
        *("tokenizer", "vocab_size", "train_bytes"),
    ),
    (_TRAINS,),
)
"""The settings of the section tokenize that act only if the run trains a model, each with this condition.

For these settings, the condition replaces the condition of the section.
"""
_OF_ANY_RUN = ("train.workers",)
"""Settings to which the condition of their section does not apply.

They act in every run, because the number of executors depends on them.
"""


def acts_with(key: str) -> str:
    """Return the conditions of a setting as a sentence for its description. Return "" if `RULES` has none."""
    conditions = RULES.get(key)
    return f"Acts only with {', and with '.join(each.text for each in conditions)}." if conditions else ""


def conditions_of(key: str) -> tuple[Condition, ...]:
    """Return all conditions of a setting, those of its section first."""
    section, _, name = key.partition(".")
    of_section = () if key in _OF_ANY_RUN else _OF_SECTIONS.get(section, ())
    if section == "tokenize":
        of_section = _OF_TOKENS.get(name, of_section)
    return of_section + RULES.get(key, ())


def acts(config: BaseModel, key: str, facts: Facts) -> bool:
    """Return whether a setting has an effect in a run with this configuration."""
    return all(each.holds(config, facts) for each in conditions_of(key))


def explain_without_effect(config: BaseModel, keys: Iterable[str], facts: Facts) -> Iterator[str]:
    """Yield a message for each of `keys` that has no effect in a run with this configuration.

    Settings with the value ``false`` or None are skipped: they turn something off, and it is off in this run.
    """
    for key in keys:
        value = value_of(config, key)
        lacking = [each.text for each in conditions_of(key) if not each.holds(config, facts)]
        if lacking and value is not None and value is not False:
            shown = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
            yield f"{key}={shown} has no effect: it acts only with {', and with '.join(lacking)}"
