"""Configuration: precedence, errors, and the schema that becomes the trigger form."""

import pytest

from jobs.config import Config, flat_schema, parse_settings, preset_names, resolve
from jobs.errors import InputError


def test_precedence_and_round_trip():
    assert resolve("a.txt", "tiny").windows.size == 64
    config = resolve(
        "a.txt", "tiny", parse_settings(["windows.size=32", 'generate.prompts=["O, "]', "spark.app_name=x"])
    )
    assert (config.windows.size, config.windows.stride, config.tokenize.vocab_size) == (32, 32, 1024)
    assert config.generate.prompts == ("O, ",)
    assert config.spark.app_name == "x"
    assert Config.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.windows.size = 3


def test_a_memory_size_may_have_a_capital_letter():
    spark = resolve("a.txt", "tiny", {"spark.driver_memory": "4G", "spark.executor_memory": "512M"}).spark
    assert (spark.driver_memory, spark.executor_memory) == ("4g", "512m")


def test_embed_is_a_step_if_the_model_starts_from_its_vectors():
    assert resolve("a.txt", "tiny").steps == ("tokenize", "windows", "train", "generate")
    config = resolve("a.txt", "tiny", {"train.embeddings": "embed", "embed.size": 64})
    assert config.steps == ("tokenize", "windows", "embed", "train", "generate")


@pytest.mark.parametrize(("task", "corpus"), [("generate", ""), ("evaluate", "a.txt")])
def test_a_run_that_uses_a_model_has_the_step_of_its_task_alone(task, corpus):
    others = {"windows.split": "fixed", "train.embeddings": "embed", "spark.executors": 1, "spark.executor_cores": 1}
    config = resolve("a.txt", "tiny", {"use.model": "champion", "use.task": task, "embed.size": 64, **others})
    assert (config.steps, config.corpus) == ((task,), corpus)
    assert (config.trains, config.promotes, config.reads_text) == (False, False, task == "evaluate")
    assert config.text_settings.max_piece_bytes is None  # its documents are whole
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name):
    assert resolve("a.txt", name).preset == name


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.batchsize=3", "train.batchsize: unknown key; did you mean train.batch_size?"),
        ("foo.bar=1", "foo.bar: unknown key"),
        ("foo=1", "foo: unknown key"),
        ("windows.size.x=3", "windows.size.x: unknown key; did you mean windows.size?"),
        ("windows=3", "windows: "),
        ("windows.overlap=64", "windows.overlap (64) must be less than windows.size (64)"),
        ("windows.size=0", "windows.size: input should be greater than or equal to 1, got 0"),
        ("train.batch_size=abc", "train.batch_size: input should be a valid integer"),
        ("windows.size=" + "[" * 5000, "windows.size: input should be a valid integer"),
        ("windows.size=" + "9" * 5000, "windows.size: unable to parse input string as an integer"),
        ("train.learning_rate=NaN", "train.learning_rate: input should be a finite number"),
        (
            "spark.executors=2 spark.executor_cores=1 train.workers=3",
            "train.workers (3) must be at most spark.executors x spark.executor_cores (2)",
        ),
        ("train.embeddings=embed", "embed.size (128) must equal model.embedding_size (64)"),
        ("train.batch_size=1", "train.batch_size (1) must be at least train.workers (2)"),
        ("model.num_kv_heads=3", "model.num_kv_heads (3) must divide model.num_heads (2)"),
        ("model.num_heads=5", "model.embedding_size (64) must be a multiple"),
        ("generate.prompts=[]", "generate.prompts: "),
        ("log_level=LOUD", "log_level: input should be 'TRACE', 'DEBUG', 'INFO', 'WARN' or 'ERROR', got 'LOUD'"),
        ("spark.driver_memory=lots", "spark.driver_memory: "),
        ("spark.driver_memory=511m", "spark.driver_memory: spark needs at least 512m, got '511m'"),
        ("spark.executor_memory=400000k", "spark.executor_memory: spark needs at least 512m, got '400000k'"),
        ("generate.prompts_file=/p\udcff.txt", "generate.prompts_file: contains bytes that are not UTF-8"),
        (r'generate.prompts=["ok","\ud800"]', "generate.prompts: contains bytes that are not UTF-8"),
        ("spark.app_name=\udcff", "spark.app_name: input should be a valid string"),
    ],
)
def test_a_wrong_setting_is_one_line_with_key_and_value(setting, message):
    with pytest.raises(InputError) as caught:
        resolve("a.txt", "tiny", parse_settings(setting.split()))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_wrong_presets_settings_and_files_are_refused():
    with pytest.raises(InputError, match="preset 'huge' does not exist; choose one of "):
        resolve("a.txt", "huge")
    with pytest.raises(InputError, match="write key=value"):
        parse_settings(["train.seed"])
    with pytest.raises(InputError, match=r"run\.json: train\.sed: unknown key"):
        Config.from_json('{"corpus": "a", "train": {"sed": 1}}', "run.json")
    with pytest.raises(InputError, match=r"run\.json: .*JSON"):
        Config.from_json("{", "run.json")


def test_schema_has_every_key_with_a_description():
    schema = flat_schema()
    config = resolve("a.txt", "tiny").model_dump(mode="json")
    flat = {f"{name}.{key}" for name, section in config.items() if isinstance(section, dict) for key in section}
    assert set(schema) == flat | {"log_level"}
    assert all(entry["description"] and entry["type"] and "default" in entry for entry in schema.values())
    assert schema["train.max_tokens"]["type"] == ["integer", "null"]
    assert schema["windows.over"]["enum"] == ["stream", "document"]
