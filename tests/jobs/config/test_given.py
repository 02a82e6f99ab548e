"""Settings from a configuration file, the environment and the command line."""

import pytest

from jobs.config import resolve
from jobs.config.given import gather
from jobs.errors import InputError
from jobs.lake import store

FILE = """
corpus = ["a.txt", "b.txt"]
preset = "tiny"
log_level = "WARN"
train.seed = 3
windows = { size = 32 }

[tokenize]
kind = "word"
vocab_size = 500

[generate]
prompts = ["One", "Two"]
"""


def given(tmp_path, text=FILE, settings=(), **environ):
    path = tmp_path / "my settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return gather(str(path), settings, store.read_bytes, environ)


def config_of(tmp_path, text, settings=(), **environ):
    found = given(tmp_path, text, settings, **environ)
    return resolve("a", "tiny", found.values, found.places)


def test_the_table_of_airflow_in_a_pipelines_file_has_no_effect(tmp_path):
    found = given(tmp_path, FILE + '[pipeline]\nschedule = "0 2 * * *"\n')
    assert found == given(tmp_path)


def test_tables_and_dotted_keys_are_settings(tmp_path):
    found = given(tmp_path)
    assert (found.corpus, found.preset) == ("a.txt\nb.txt", "tiny")
    assert found.values == {
        "log_level": "WARN", "train.seed": 3, "windows.size": 32, "tokenize.kind": "word", "tokenize.vocab_size": 500,
        "generate.prompts": ["One", "Two"],
    }  # fmt: skip
    config = resolve("a.txt", "tiny", found.values, found.places)
    assert (config.windows.size, config.train.batch_size, config.tokenize.kind) == (32, 32, "word")
    assert config.generate.prompts == ("One", "Two")
    assert config.chosen == tuple(sorted(found.values))


def test_each_place_wins_over_those_before(tmp_path):
    """Defaults, preset, file, environment, command line: each sets one key more than the next."""
    assert resolve("a").train.max_tokens is None
    assert resolve("a", "tiny").train.max_tokens == 400_000
    text = "train.max_tokens = 1\ntrain.seed = 1\ntrain.epochs = 1.5\nmodel.num_layers = 1"
    environ = {"NIGHTJAR_TRAIN_SEED": "2", "NIGHTJAR_TRAIN_EPOCHS": "2.5", "NIGHTJAR_LAKE": "x"}
    found = given(tmp_path, text, ["train.seed=3"], **environ)
    config = config_of(tmp_path, text, ["train.seed=3"], **environ)
    assert (config.model.num_layers, config.train.max_tokens) == (1, 1)
    assert (config.train.epochs, config.train.seed) == (2.5, 3)
    assert found.from_environment == {"train.seed": 2, "train.epochs": 2.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.batchsize = 3", "train.batchsize: unknown key; did you mean train.batch_size?"),
        ("[trian]\nseed = 3", "trian.seed: unknown key; did you mean train.seed?"),
        ("[foo]", "foo: unknown key"),
        ("[windows.size]\nx = 3", "windows.size: input should be a valid integer"),
        ("windows = 3", "windows: unknown key"),
        ("chosen = []", "chosen: unknown key"),
        ("train.batch_size = 'many'", "train.batch_size: input should be a valid integer"),
        ("train.learning_rate = nan", "train.learning_rate: input should be a finite number"),
        ("train.seed = 2020-01-01", "train.seed: input should be a valid integer"),
        ("corpus = 3", "corpus: input should be a valid string, got 3"),
        ("preset = ['tiny']", "preset: input should be a valid string"),
        ("seed", "not TOML (expected '=' after a key"),
        ("train.seed = 1\ntrain.seed = 2", "not TOML (cannot overwrite a value (at"),
        (f"train.seed = {'9' * 5000}", "a number has more digits than can be read; write a smaller one"),
        (b"# caf\xe9", "not UTF-8 at byte 5"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        config_of(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'my settings.toml'}: {message}")
    assert "\n" not in str(caught.value)


def test_the_place_that_wins_is_named(tmp_path):
    with pytest.raises(InputError, match=r"^NIGHTJAR_TRAIN_SEED: train\.seed: input should be"):
        config_of(tmp_path, "train.seed = 3", NIGHTJAR_TRAIN_SEED="x")
    with pytest.raises(InputError, match=r"^train\.seed: input should be"):
        config_of(tmp_path, "train.seed = 'x'", ["train.seed=y"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot be read \(No such file or directory\); check"):
        gather(str(tmp_path / "none.toml"), (), store.read_bytes, {})


@pytest.mark.parametrize("key", ["corpus", "preset"])
def test_what_has_an_option_of_its_own_is_no_setting(key):
    with pytest.raises(InputError, match=f"{key}: not a setting; use --{key}"):
        resolve("a", "tiny", {key: "medium"})
