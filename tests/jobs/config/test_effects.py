"""Each setting acts, or a line says that it does not: the table is compared with what the steps really make."""

import functools
import hashlib
import json
from datetime import UTC, datetime

import pytest

from jobs.config import flat_schema, resolve
from jobs.config.effects import RULES, Facts, acts, acts_with, explain_without_effect
from jobs.config.prompts import read_prompts
from jobs.engine.inline import InlineEngine
from jobs.errors import DivergedError
from jobs.fingerprint import fingerprint
from jobs.generation.sample_batches import generate_batch, plan_batches
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.model_io.folder import save_model
from jobs.prices.budget import describe_budget, has_budget
from jobs.steps import train
from jobs.training.checkpoint import complete_checkpoints
from jobs.training.job import CHANGEABLE_SETTINGS, TrainingJob
from nightjar.emr import requests
from tests.support.datasets import PASSAGE, Pipeline
from tests.support.handmade import make_datasets, make_run

WORDS = {"tokenize.kind": "word"}
IDS = {"tokenize.kind": "word", "tokenize.input": "ids"}
GIVEN = {"tokenize.tokenizer": "given"}
MLP = {"model.kind": "context_mlp"}
ATTENTION = {"model.kind": "context_attention"}
ROUNDS = {"train.strategy": "average", "train.sync_every": 2}
DILOCO = {**ROUNDS, "train.strategy": "diloco"}
SGD, MUON, ADAM = ({"train.optimizer": name} for name in ("sgd", "muon", "adam"))
WSD, EXPONENTIAL = {"train.schedule": "wsd"}, {"train.schedule": "exponential"}
RISING = {"train.learning_rate": 1.0}
FILE = {"generate.prompts_file": "file"}
GREEDY = {"generate.temperature": 0}

TOKENIZE = {
    # key: (value, settings with which it has no effect, settings with which it acts)
    "tokenize.drop_gutenberg": (True, IDS, {}),
    "tokenize.normalize_nfc": (True, IDS, {}),
    "tokenize.max_piece_bytes": (1024, {}, {"windows.split": "fixed"}),
    "tokenize.drop_duplicates": (True, {"tokenize.drop_near_duplicates": True}, {}),
    "tokenize.kind": ("char", GIVEN, {}),
    "tokenize.lowercase": (True, {}, WORDS),
    "tokenize.min_frequency": (2, {}, WORDS),
    "tokenize.vocab_size": (300, GIVEN, {}),
    "tokenize.train_bytes": (1024, WORDS, {}),
    "windows.seed": (5, {"windows.split": "tail"}, {"windows.split": "hash"}),
}
TRAIN = {
    "model.num_layers": (1, MLP, {}),
    "model.hidden_size": (48, MLP, {}),
    "model.hidden_sizes": ([24], {}, MLP),
    "model.num_heads": (1, MLP, {"model.num_kv_heads": 1}),
    "model.num_kv_heads": (2, MLP, {}),
    "model.positions": ("none", MLP, ATTENTION),
    "model.rope_theta": (100.0, {**ATTENTION, "model.positions": "learned"}, ATTENTION),
    "model.norm_epsilon": (0.1, MLP, {}),
    "train.sync_every": (3, {}, ROUNDS),
    "train.outer_learning_rate": (0.5, ROUNDS, DILOCO),
    "train.outer_momentum": (0.9, ROUNDS, DILOCO),
    "train.delta_dtype": ("int8", {}, ROUNDS),
    "train.allreduce_steps": (2, {}, ROUNDS),
    "train.min_learning_rate_ratio": (0.5, EXPONENTIAL, WSD),
    "train.decay_fraction": (0.9, {}, WSD),
    "train.decay_per_epoch": (0.1, WSD, EXPONENTIAL),
    "train.weight_decay": (0.9, ADAM, MUON),
    "train.beta1": (0.2, SGD, MUON),
    "train.beta2": (0.2, SGD, ADAM),
    "train.momentum": (0.2, ADAM, SGD),
    "train.nesterov": (False, {**SGD, "train.momentum": 0}, {**SGD, "train.momentum": 0.5}),
    "train.checkpoint_every": (3, ROUNDS, {}),
    "train.checkpoint_seconds": (1e-6, ROUNDS, {}),
    "train.max_loss_rise": (1e-9, {**ROUNDS, **RISING}, RISING),
}
GENERATE = {
    "generate.prompts": (["Licensed"], FILE, {}),
    "generate.prompt_unit": ("file", {}, FILE),
    "generate.max_new_words": (3, {"generate.max_new_tokens": 9}, {}),
    "generate.top_k": (2, GREEDY, {}),
    "generate.top_p": (0.1, GREEDY, {}),
    "generate.min_p": (0.9, GREEDY, {}),
    "generate.seed": (9, GREEDY, {}),
}
FACTS = {
    "tokenize.field": ("content", Facts(formats=frozenset({"txt"})), Facts(formats=frozenset({"txt", "jsonl"}))),
    "spark.app_name": ("name", Facts("inline"), Facts("emr")),
    "spark.master": ("spark://host:7077", Facts("emr"), Facts("spark")),
    "spark.deploy_mode": ("cluster", Facts("spark"), Facts("emr")),
    "spark.driver_memory": ("3g", Facts("inline"), Facts("spark")),
    "spark.executor_memory": ("3g", Facts("inline"), Facts("emr")),
    "spark.executor_overhead": ("3g", Facts("inline"), Facts("emr")),
    "spark.executors": (3, Facts("inline"), Facts("spark")),
    "spark.executor_cores": (3, Facts("inline"), Facts("emr")),
    **{key: (None, Facts("spark"), Facts("emr")) for key in flat_schema() if key.startswith("cluster.")},
    **{key: (None, Facts(), Facts(steps=("embed",))) for key in RULES if key.startswith("embed.")},
}
UNSEEN = {
    # Their effect is on faults, or on files that are deleted at the end.
    "train.state_every": (3, {}, ROUNDS),
    "train.max_rollbacks": (1, {}, {"train.on_divergence": "rollback"}),
    # It needs the model of a run.
    "train.epochs_of_new_text": (2.0, {}, {"train.init": "champion"}),
    "train.gang_timeout_seconds": (400.0, ROUNDS, {}),
    "use.task": ("evaluate", {}, {"use.model": "champion"}),
    # Airflow's task preflight and the train step on a cluster read them.
    "budget.usd": (5.0, {"cluster.job_flow_id": "j-1"}, {}),
    "budget.usd_month": (5.0, {"cluster.job_flow_id": "j-1"}, {}),
    # Airflow's task promote reads them.
    **{key: (flat_schema()[key]["default"], {"promotion.enabled": False}, {}) for key in RULES if "promotion." in key},
}
ALL = {**TOKENIZE, **TRAIN, **GENERATE, **UNSEEN}


def config_of(settings):
    base = {"embed.size": 64, "model.positions": "rotary"}
    return resolve("text.txt", "tiny", base | settings)


def complaints(settings, key, facts=None):
    return list(explain_without_effect(config_of(settings), [key], facts or Facts()))


def test_every_rule_has_a_case_and_a_sentence_in_the_description():
    assert set(RULES) <= set(ALL) | set(FACTS)
    for key, schema in flat_schema().items():
        assert schema["description"].endswith(acts_with(key))
        assert bool(acts_with(key)) == (key in RULES)


@pytest.mark.parametrize("key", ALL)
def test_a_setting_without_effect_is_named_and_one_that_acts_is_not(key):
    value, inert, acting = ALL[key]
    value = True if value is False else value  # a setting that is off is never complained of
    (line,) = complaints({**inert, key: value}, key)
    assert line.startswith(f"{key}=")
    assert " has no effect: it acts only with " in line
    assert complaints({**acting, key: value}, key) == []


@pytest.mark.parametrize("key", FACTS)
def test_the_place_of_a_run_decides_about_some_settings(key):
    value, inert, acting = FACTS[key]
    spot = {"cluster.task_instances": 1}
    settings = spot if value is None else {key: value}
    assert acts(config_of(settings), key, acting)
    assert not acts(config_of(settings), key, inert)
    assert not complaints(settings, key, acting)


def test_settings_that_are_off_are_not_complained_of():
    assert complaints({"tokenize.lowercase": False}, "tokenize.lowercase") == []
    assert complaints({**GREEDY, "generate.top_k": None}, "generate.top_k") == []


def test_an_inherited_vocabulary_takes_the_effect_of_its_settings():
    settings = {"tokenize.tokenizer": "inherit", "tokenize.vocab_size": 300}
    assert complaints(settings, "tokenize.vocab_size", Facts(inherits=False)) == []
    (line,) = complaints(settings, "tokenize.vocab_size", Facts(inherits=True))
    assert line.startswith("tokenize.vocab_size=300 has no effect: it acts only with a vocabulary that is learned")


def test_the_seed_acts_until_the_split_of_a_pipeline_is_decided():
    settings = {"windows.split": "fixed", "windows.seed": 5}
    assert complaints(settings, "windows.seed") == complaints(settings, "windows.seed", Facts(split_seed=5)) == []
    assert complaints(settings, "windows.seed", Facts(split_seed=0)) == [
        "windows.seed=5 has no effect: it acts only with windows.split=auto or source or block or hash, or with"
        " windows.split=fixed in the first run of a pipeline"
    ]
    assert complaints(settings | {"windows.split": "hash"}, "windows.seed", Facts(split_seed=0)) == []


@pytest.mark.parametrize(
    ("task", "inert", "acting"),
    [
        ("generate", ("tokenize.field", "tokenize.split_bytes"), ("generate.top_k", "generate.num_samples")),
        (
            "evaluate",
            ("generate.top_k", "generate.num_samples", "tokenize.vocab_size", "tokenize.drop_duplicates"),
            ("tokenize.field", "tokenize.documents"),
        ),
    ],
)
def test_a_run_that_uses_a_model_names_the_settings_that_do_not_act(task, inert, acting):
    config = config_of({"use.model": "champion", "use.task": task, "tokenize.drop_duplicates": True})
    of_training = ("windows.size", "model.num_layers", "train.seed", "embed.size", "promotion.documents")
    assert [key for key in (*inert, *of_training) if acts(config, key, Facts())] == []
    assert all(acts(config, key, Facts()) for key in (*acting, "train.workers", "log_level", "use.task"))
    (line,) = explain_without_effect(config, ["train.seed"], Facts())
    assert line == "train.seed=1234 has no effect: it acts only with use.model unset"


def identity(config):
    """Return everything that names or describes the parts of a run: fingerprints, requests to EMR, rows."""
    run = Lake("s3://lakes/x").run("r")
    who = requests.ClusterIdentity(run)
    return json.dumps(
        {
            "data": [fingerprint(settings=getattr(config, name).model_dump()) for name in ("tokenize", "windows")],
            "embed": fingerprint(settings=config.embed.model_dump()),
            "train": TrainingJob(run, config, "0").settings_hash(),
            "changeable": {name: getattr(config.train, name) for name in sorted(CHANGEABLE_SETTINGS)},
            "generate": config.generate.model_dump(),
            "use": config.use.model_dump(),
            "promotion": config.promotion.model_dump(),
            "budget": describe_budget(config) if has_budget(config) else None,
            "cluster": requests.run_job_flow(config, who, datetime(2026, 1, 1, tzinfo=UTC), "s3://p"),
            "step": requests.add_step("j", "train", config, run, "s3://p"),
            "local": [
                config.spark.master,
                config.log_level,
                config.cluster.step_timeout_seconds,
                config.cluster.job_flow_id,
            ],
        }
    )


VALUES = {
    "budget.usd": 5.0, "budget.usd_month": 50.0,
    "promotion.canaries": ["One"], "promotion.max_unknown": 0.1, "promotion.baseline": "bigram",
    "tokenize.max_document_bytes": 5, "tokenize.max_piece_bytes": 2048,
    "train.init": "champion", "train.epochs_of_new_text": 2.0, "train.embeddings": "a.csv", "train.max_tokens": 9,
    "train.max_seconds": 9.0, "train.early_stopping_evals": 9, "train.micro_batch_size": 3, "train.max_loss_rise": 1.0,
    "generate.prompts_file": "p.txt", "generate.prompts": ["x"], "generate.stop": ["x"], "generate.max_new_tokens": 7,
    "generate.min_new_words": 2, "generate.top_p": 0.5, "generate.min_p": 0.5, "model.hidden_sizes": [3],
    "model.embedding_size": 128, "model.num_heads": 4, "model.num_kv_heads": 1, "model.positions": "rotary",
    "cluster.primary_instance_types": ["m7i.xlarge"], "cluster.core_instance_types": ["m7i.xlarge"],
    "cluster.task_instance_types": ["m7i.xlarge"], "cluster.subnet_ids": ["subnet-1"], "tokenize.input": "ids",
    "cluster.wheelhouse": "s3://lakes/" + "0" * 64, "train.workers": 1, "windows.overlap": 3, "spark.executors": 3,
    "spark.driver_memory": "9g", "spark.executor_memory": "1g", "spark.master": "local[2]",
    "spark.deploy_mode": "cluster",
    "spark.executor_overhead": "3g", "spark.executor_cores": 7,
    "train.on_divergence": "rollback", "windows.valid_fraction": 0.3, "generate.dtype": "bfloat16",
    "cluster.primary_security_group": "sg-1", "cluster.core_security_group": "sg-1", "embed.subsample": 0.5,
    "cluster.service_security_group": "sg-1", "cluster.security_configuration": "x",
    "cluster.job_flow_id": "j-1ABC", "cluster.time_to_live_hours": 99.0,
}  # fmt: skip


def other_value(key, schema):
    """Return a valid value of a setting that is not its default."""
    default = schema["default"]
    if key in VALUES:
        return VALUES[key]
    if "enum" in schema:
        return next(choice for choice in schema["enum"] if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 7
    return default / 2 or 0.5 if isinstance(default, float) else f"{default}x"


@pytest.mark.parametrize("key", [key for key in flat_schema() if key not in ("model.positions", "train.embeddings")])
def test_every_setting_reaches_what_a_run_is_made_of(key):
    base = {"cluster.task_instances": 1, "spark.executors": 2}
    base |= {"tokenize.kind": "word"} if key == "tokenize.input" else {}
    changed = {key: other_value(key, flat_schema()[key])}
    before = identity(config_of(base))
    assert identity(config_of(base | changed)) != before, changed


CORPUS = {
    "a.txt": PASSAGE[:6000]
    + b"\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\nCafe\xcc\x81 Twice\n\nCafe\xcc\x81 Twice\n",
    "b.txt": b"7 8 9 10 11 12\n\n7 8 9 10 11 12\n" + b"\n".join(b"%d" % (i * i % 91) for i in range(900)),
}  # fmt: skip


class Results:
    """Makes the results of settings by the steps of one section, once for equal settings."""

    def __init__(self, folder, model, tokenizer):
        self.folder, self.lake, self.numbers = folder, Lake((folder / "lake").as_uri()), iter(range(10_000))
        (folder / "given.json").write_bytes(tokenizer.json)
        (folder / "prompts.txt").write_text("Apache\nLicense")
        for name, data in CORPUS.items():
            (folder / name).write_bytes(data)
        save_model((folder / "model").as_uri(), model, tokenizer)
        make_datasets(self.lake, tokenizer)

    def of(self, key, settings):
        """Return the results of the section of `key`."""
        function = self.tokens if key in TOKENIZE else self.weights if key in TRAIN else self.samples
        return self._made(function, tuple(sorted((name, _frozen(value)) for name, value in settings.items())))

    @functools.cache  # noqa: B019 - as long as the module's tests
    def _made(self, function, settings):
        return function(dict(settings))

    def tokens(self, settings):
        corpus = self.folder / ("b.txt" if settings.get("tokenize.input") == "ids" else "a.txt")
        given = {"tokenize.tokenizer": str(self.folder / "given.json")} if "tokenize.tokenizer" in settings else {}
        values = {key.replace(".", "__"): value for key, value in (settings | given).items()}
        pipeline = Pipeline((self.folder / f"lake{next(self.numbers)}").as_uri(), str(corpus), **values)
        pipeline.tokenize()
        if not any(key.startswith("windows.") for key in settings):
            return [entry.sha256 for entry in pipeline.tokens.shards], pipeline.tokens.read_tokenizer().json
        pipeline.windows()
        manifest = store.read_manifest(pipeline.lake.dataset("windows", pipeline.datasets["windows"]))
        return [entry.sha256 for entry in manifest.files if entry.name.endswith(".arrow")]

    def weights(self, settings):
        few = {"train.max_tokens": 6 * 12 * 16, "train.batch_size": 12, "train.eval_every": 100, "train.epochs": 0.5,
               "train.checkpoint_every": 100, "train.keep_checkpoints": 9, "train.warmup_steps": 0}  # fmt: skip
        values = {key.replace(".", "__"): value for key, value in (few | settings).items()}
        run, config = make_run(self.lake, f"r{next(self.numbers)}", **values)
        try:
            train.run(run, config, InlineEngine(), lambda _: None)
        except DivergedError as error:
            return type(error).__name__
        weights = store.read_bytes(join(run.model, "model.safetensors"))
        return hashlib.sha256(weights).hexdigest(), complete_checkpoints(run)

    def samples(self, settings):
        file = {"generate.prompts_file": str(self.folder / "prompts.txt")} if FILE.keys() & settings.keys() else {}
        config = config_of({"generate.max_new_words": 5, **settings, **file}).generate
        (batch,) = plan_batches(read_prompts(config, store.read_bytes), config.num_samples)
        rows, _ = generate_batch(batch, (self.folder / "model").as_uri(), "0", config)
        return [(row["prompt"], row["tokens"]) for row in rows]


@pytest.fixture(scope="module")
def results(tmp_path_factory, model_and_tokenizer_untrained):
    return Results(tmp_path_factory.mktemp("effects"), *model_and_tokenizer_untrained)


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("key", [*TOKENIZE, *TRAIN, *GENERATE])
def test_the_table_is_true(results, key):
    value, inert, acting = ALL[key]
    assert results.of(key, {**inert, key: value}) == results.of(key, inert)
    assert results.of(key, {**acting, key: value}) != results.of(key, acting)
