"""The trigger form: its fields, and the configuration of a filled-in form."""

import pytest

from jobs.config import flat_schema, resolve
from jobs.errors import InputError
from nightjar.form import read_form, trigger_form


def filled(**changes):
    """Return the parameters that tasks get when a user changes some fields of the form."""
    values = {key: param.value for key, param in trigger_form("s3://lakes/text").items()}
    return values | {key.replace("__", "."): value for key, value in changes.items()}


def test_every_key_has_a_field_that_accepts_its_default_and_nothing():
    form = trigger_form(None)
    assert set(form) == {"corpus", "preset"} | set(flat_schema())
    for key, schema in flat_schema().items():
        assert form[key].resolve(None) is None
        assert form[key].resolve(schema["default"]) == schema["default"]
        assert form[key].description


def test_an_untouched_form_is_the_preset():
    assert read_form(filled()) == resolve("s3://lakes/text", "demo")


def test_the_form_wins_over_the_preset_which_wins_over_defaults():
    config = read_form(filled(preset="tiny", windows__size=32, generate__prompts=["One", "Two"]))
    assert config.windows.size == 32
    assert config.tokenize.vocab_size == resolve("s3://x/y", "tiny").tokenize.vocab_size == 1024
    assert config.generate.prompts == ("One", "Two")


def test_a_path_becomes_a_uri(tmp_path):
    assert read_form(filled(corpus=str(tmp_path / "my text.txt"))).corpus == (tmp_path / "my text.txt").as_uri()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": None}, "NIGHTJAR_CORPUS"),
        ({"corpus": "ftp://host/file"}, "unknown scheme 'ftp'"),
        ({"preset": "huge"}, "preset 'huge' does not exist"),
        ({"train__batchsize": 3}, "did you mean train.batch_size"),
        ({"windows__size": 0}, "windows.size"),
        ({"train__workers": 64}, "train.batch_size"),
    ],
)
def test_mistakes_are_named_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read_form(filled(**changes))
    assert "\n" not in str(caught.value)


def test_the_form_wins_over_the_environment_which_wins_over_the_preset(monkeypatch):
    monkeypatch.setenv("NIGHTJAR_CLUSTER_OWNER", "platform")
    monkeypatch.setenv("NIGHTJAR_CLUSTER_SERVICE_ROLE", "nightjar-service")
    monkeypatch.setenv("NIGHTJAR_WINDOWS_SIZE", "32")
    config = read_form(filled(preset="tiny", cluster__owner="ann"))
    assert (config.cluster.owner, config.cluster.service_role) == ("ann", "nightjar-service")
    assert (resolve("s3://x/y", "tiny").windows.size, config.windows.size) == (64, 32)


def test_a_wrong_variable_of_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("NIGHTJAR_CLUSTER_ROL", "x")
    with pytest.raises(InputError, match="NIGHTJAR_CLUSTER_ROL: no setting has this variable"):
        read_form(filled())
