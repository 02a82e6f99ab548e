"""The trigger form: its fields, and the configuration of a filled-in form."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.config import flat_schema, preset_names, resolve
from jobs.errors import InputError
from jobs.lake.layout import Lake
from nightjar import form, form_layout
from nightjar.form import local_texts
from nightjar.pipelines import PipelineConfig, PipelineTable

S3 = Lake("s3://lakes/x")
DEFAULT = PipelineConfig("default")


def trigger_form(corpus, lake, **chosen):
    return form.trigger_form(PipelineConfig("default", corpus=corpus, **chosen), lake)


def read_form(params, pipeline=DEFAULT):
    return form.read_form(params, pipeline)


FORM = trigger_form("s3://lakes/text", S3)


def filled(**changes):
    """Return the parameters that tasks get when a user changes some fields of the form."""
    values = {key: param.value for key, param in trigger_form("s3://lakes/text", S3).items()}
    return values | {key.replace("__", "."): value for key, value in changes.items()}


def test_every_key_has_a_field_that_accepts_its_default_and_nothing():
    form = trigger_form(None, S3)  # `resolve` changes it
    assert set(form) == {"corpus", "preset"} | set(flat_schema())
    for key, schema in flat_schema().items():
        assert form[key].resolve(None) is None
        assert form[key].resolve(schema["default"]) == schema["default"]
        assert form[key].schema["description_md"]


def test_the_essential_fields_are_first_and_open_and_the_others_are_folded_by_section():
    sections = [param.schema.get("section") for param in FORM.values()]
    assert list(FORM)[: len(form_layout.ESSENTIALS)] == list(form_layout.ESSENTIALS)
    assert [section is None for section in sections] == [key in form_layout.ESSENTIALS for key in FORM]
    assert len([a for a, b in pairwise(sections) if a != b]) == len(set(sections)) - 1


def test_every_field_has_a_title_in_words():
    titles = {key: (param.schema.get("section"), param.schema["title"]) for key, param in FORM.items()}
    assert [title for _, title in titles.values() if not re.fullmatch(r"[A-Z][^_]+", title)] == []
    assert len(set(titles.values())) == len(titles)
    listed = {*form_layout.ESSENTIALS, *form_layout._PLACES}
    assert listed - set(FORM) == set()


def test_a_setting_without_a_place_of_its_own_gets_one_from_its_key():
    assert form_layout.place("train.new_limit") == {"title": "New limit", "section": "Training"}
    assert form_layout.place("new_key") == {"title": "New key", "section": "Logging"}


def test_the_default_that_a_field_names_is_the_one_that_each_preset_takes():
    for preset in preset_names():
        values = resolve("s3://x/y", preset).model_dump()
        for key, number in (("train.max_seconds", 1), ("model.embedding_size", 1), ("train.epochs", 1)):
            group, _, name = key.partition(".")
            text = FORM[key].schema["description_md"]
            of_preset = re.search(rf"[( ]{preset}: ([^,)]*)", text)
            common = re.search(r"Default: (\S+?)[. ]", text)
            named = (of_preset or common)[number]
            value = values[group][name]
            assert named == ("none" if value is None else f"{value:g}"), (preset, key)


def test_switches_show_what_every_preset_takes_and_the_others_are_empty():
    """A switch cannot be empty. If a preset differed, an untouched form would override it."""
    for key, schema in flat_schema().items():
        if schema.get("type") == "boolean":
            group, _, name = key.partition(".")
            assert {getattr(getattr(resolve("s3://x/y", preset), group), name) for preset in preset_names()} == {
                FORM[key].value
            }, key
        else:
            assert FORM[key].value is None


def test_the_environment_decides_what_a_switch_shows_and_what_a_field_names(monkeypatch):
    monkeypatch.setenv("NIGHTJAR_TRAIN_COMPILE", "true")
    monkeypatch.setenv("NIGHTJAR_WINDOWS_SIZE", "32")
    form = trigger_form(None, S3)
    assert (form["train.compile"].value, form["windows.size"].value) == (True, 32)
    assert "32, set in NIGHTJAR\\_WINDOWS\\_SIZE" in form["windows.size"].schema["description_md"]
    untouched = {key: param.value for key, param in form.items()} | {"corpus": "s3://x/y"}
    assert read_form(untouched).train.compile is True
    assert read_form(untouched | {"train.compile": False}).train.compile is False


POEMS = PipelineConfig(
    "poems",
    Path("/pipelines/poems.toml"),
    corpus="s3://lakes/poems",
    preset="tiny",
    values={"windows.size": 32, "train.compile": True, "generate.prompts": ["One"], "cluster.owner": "ann"},
)


def test_the_form_shows_what_the_pipeline_takes():
    shown = {key: param.value for key, param in form.trigger_form(POEMS, S3).items()}
    assert (shown["corpus"], shown["preset"]) == ("s3://lakes/poems", "tiny")
    assert (shown["windows.size"], shown["train.compile"], shown["generate.prompts"]) == (32, True, ["One"])
    assert shown["train.batch_size"] is None
    untouched = read_form(shown, POEMS)
    assert untouched == resolve("s3://lakes/poems", "tiny", POEMS.values)
    assert read_form({"corpus": "s3://lakes/poems"}, POEMS) == untouched  # a run of Airflow's API


def test_a_run_does_not_keep_the_machines_that_the_form_shows():
    """The form's values stay with a run. A wrong subnet in the file would stay, too, after it is corrected."""
    field = form.trigger_form(POEMS, S3)["cluster.owner"]
    assert field.value is None
    assert '"ann", set in poems.toml' in field.schema["description_md"]


def test_a_field_that_is_emptied_takes_what_the_pipeline_takes():
    shown = {key: param.value for key, param in form.trigger_form(POEMS, S3).items()}
    assert read_form(shown | {"windows.size": None}, POEMS).windows.size == 32


def test_a_field_that_is_emptied_has_no_value_where_that_is_one():
    """A run by hand can start from random weights, whatever the file of its pipeline says."""
    pipeline = replace(POEMS, values={"train.init": "champion-or-scratch:poems", "train.max_tokens": 5000})
    fields = form.trigger_form(pipeline, S3)
    shown = {key: field.value for key, field in fields.items()}
    assert read_form(shown, pipeline).train.init == "champion-or-scratch:poems"
    emptied = read_form(shown | {"train.init": None, "train.max_tokens": None}, pipeline)
    assert (emptied.train.init, emptied.train.max_tokens) == (None, None)
    text = fields["train.init"].schema["description_md"]
    assert 'Set in poems.toml: "champion-or-scratch:poems". An empty field means no value.' in text


def test_the_form_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_preset(monkeypatch):
    monkeypatch.setenv("NIGHTJAR_WINDOWS_SIZE", "16")
    monkeypatch.setenv("NIGHTJAR_GENERATE_PROMPTS", '["Two"]')
    shown = {key: param.value for key, param in form.trigger_form(POEMS, S3).items()}
    assert (shown["windows.size"], shown["generate.prompts"]) == (16, ["Two"])
    config = read_form(shown | {"windows.size": 8}, POEMS)
    assert (config.windows.size, config.generate.prompts, config.cluster.owner) == (8, ("Two",), "ann")
    assert config.tokenize.vocab_size == resolve("s3://x/y", "tiny").tokenize.vocab_size


def test_another_preset_in_the_form_keeps_the_settings_of_the_file():
    shown = {key: param.value for key, param in form.trigger_form(POEMS, S3).items()}
    config = read_form(shown | {"preset": "demo"}, POEMS)
    assert config == resolve("s3://lakes/poems", "demo", POEMS.values)


def test_a_wrong_file_starts_no_run():
    with pytest.raises(InputError, match=r"^/pipelines/x.toml: not TOML"):
        read_form({"corpus": "s3://x/y"}, PipelineConfig("x", wrong="/pipelines/x.toml: not TOML"))


def test_a_wrong_variable_of_the_environment_leaves_the_form_alone(monkeypatch):
    monkeypatch.setenv("NIGHTJAR_CLUSTER_ROL", "x")
    assert set(trigger_form(None, S3)) == set(FORM)


def test_the_choices_that_a_setting_describes_are_described_in_the_list():
    described = 0
    for key, schema in flat_schema().items():
        labels = FORM[key].schema.get("values_display", {})
        for choice in schema.get("enum", []):
            if f"`{choice}`:" in schema["description"]:
                assert labels[choice].startswith(f"{choice}: "), key
                described += 1
            assert labels[choice]
    assert described > 20
    assert FORM["windows.last"].schema["values_display"]["shift"] == "shift: moves the last window back until it fits"
    assert all(label.startswith(f"{name}: ") for name, label in FORM["preset"].schema["values_display"].items())


@pytest.fixture
def lake(tmp_path):
    """A lake with two texts, and with files that are none."""
    corpora = tmp_path / "my lake" / "corpora"
    (corpora / "shakespeare").mkdir(parents=True)
    (corpora / ".shakespeare.part").mkdir()
    for name in ("A tale.JSONL.gz", "notes.docx", ".hidden.txt"):
        (corpora / name).write_text("x")
    return Lake((tmp_path / "my lake").as_uri())


def test_texts_of_a_local_lake_are_choices_and_the_sample_is_the_default(lake, tmp_path):
    corpora = tmp_path / "my lake" / "corpora"
    field = trigger_form(None, lake)["corpus"]
    assert field.value == str(corpora / "shakespeare")
    assert field.schema["examples"] == [str(corpora / "A tale.JSONL.gz"), str(corpora / "shakespeare")]
    assert field.resolve("s3://another/text") == "s3://another/text"
    assert "A tale.JSONL.gz" in field.schema["description_md"]


def test_without_the_sample_the_first_text_is_the_default_and_without_texts_none(lake, tmp_path):
    (tmp_path / "my lake" / "corpora" / "shakespeare").rmdir()
    assert trigger_form(None, lake)["corpus"].value.endswith("A tale.JSONL.gz")
    assert trigger_form(None, Lake((tmp_path / "empty").as_uri()))["corpus"].value is None


def test_the_corpus_of_the_deployment_wins_and_scheduled_runs_take_no_sample(lake):
    assert trigger_form("s3://x/y", lake)["corpus"].value == "s3://x/y"
    for table in (PipelineTable(schedule="0 2 * * *"), PipelineTable(assets=("new text",))):
        assert trigger_form(None, lake, table=table)["corpus"].value is None


def test_a_lake_on_s3_is_not_read(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert local_texts(S3) == []
    field = trigger_form(None, S3)["corpus"]
    assert field.value is None
    assert "s3://lakes/x/corpora/my-text.txt" in field.schema["description_md"]


def test_an_untouched_form_is_the_preset():
    assert read_form(filled()) == resolve("s3://lakes/text", "demo")


def test_the_form_wins_over_the_preset_which_wins_over_defaults():
    config = read_form(filled(preset="tiny", windows__size=32, generate__prompts=["One", "Two"]))
    assert config.windows.size == 32
    assert config.tokenize.vocab_size == resolve("s3://x/y", "tiny").tokenize.vocab_size == 1024
    assert config.generate.prompts == ("One", "Two")


def test_a_path_becomes_a_uri(tmp_path):
    assert read_form(filled(corpus=str(tmp_path / "my text.txt"))).corpus == (tmp_path / "my text.txt").as_uri()


@pytest.mark.parametrize("corpus", [None, "", "s3://lakes/text"])
def test_a_run_that_only_generates_needs_no_text_and_reads_none(corpus):
    config = read_form(filled(corpus=corpus, use__model="champion", generate__dtype="int8", model__kind="context_mlp"))
    assert (config.steps, config.corpus, config.use.model) == (("generate",), "", "champion")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": None}, "NIGHTJAR_CORPUS"),
        (
            {"corpus": None, "use__model": "champion", "use__task": "evaluate"},
            "no text to evaluate the model on; name one in the trigger form, or set NIGHTJAR_CORPUS",
        ),
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
    with pytest.raises(InputError, match="NIGHTJAR_CLUSTER_ROL: this variable does not belong to a setting"):
        read_form(filled())
