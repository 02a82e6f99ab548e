"""What training starts from is checked before any text is tokenized, and before anything is written."""

import logging

import pytest

from jobs.config import resolve
from jobs.engine.inline import InlineEngine
from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.uri import base_name, join, to_uri
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.model_io.archive import pack
from jobs.model_io.folder import save_model
from jobs.pipeline import read_config, run_step, start_run, warn_inert_in_step
from tests.support.handmade import TEXT, TINY_MODEL, train_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a corpus, a lake with the model of a run, and files that settings may name."""
    folder = tmp_path_factory.mktemp("inputs")
    lake, tokenizer = Lake((folder / "lake").as_uri()), train_tokenizer()
    (folder / "a.txt").write_text(TEXT)
    config = resolve("a.txt", "tiny", TINY_MODEL)
    model = build_model(config.model, DataShape(tokenizer.vocab_size, 16, tokenizer.end_of_text))
    contents = save_model(lake.run("earlier").model, model, tokenizer)
    (folder / "model.zip").write_bytes(pack(contents))
    context = build_model(resolve("a", "attention-dense").model, DataShape(300, 16, 256))
    save_model(lake.run("context").model, context, tokenizer)
    (folder / "other.json").write_bytes(train_tokenizer("another text than that " * 99).json)
    (folder / "own.json").write_bytes(tokenizer.json)
    (folder / "text.json").write_text('{"model": 3}')
    (folder / "e.csv").write_text("token,id,v0,v1\na,1,1,2\n")
    (folder / "words.csv").write_text(
        "token,id," + ",".join(f"v{i}" for i in range(32)) + "\nxyzzy,1" + ",1" * 32 + "\n"
    )
    (folder / "broken.csv").write_text("token,id,v0\na,1,x\n")
    (folder / "empty.txt").write_text("")
    (folder / "long.txt").write_text("word " * 400)
    return folder


def start(folder, name="later", lake="lake", **settings):
    values = {key.replace("__", "."): value for key, value in settings.items()}
    for key, value in values.items():
        if isinstance(value, str) and (folder / value).exists():
            values[key] = str(folder / value)
    return start_run(Lake(to_uri(str(folder / lake))).run(name), str(folder / "a.txt"), "tiny", TINY_MODEL | values)


def run_of(folder, name, lake="another lake"):
    return Lake(to_uri(str(folder / lake))).run(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train__init": "nothing"}, r"train\.init: nothing: no model found"),
        ({"train__init": "champion"}, r"no champion yet.*; or set train\.init=champion-or-scratch"),
        ({"train__init": "earlier", "model__num_layers": 1}, r"model\.num_layers is 2 in that model and 1 in this run"),
        ({"train__init": "model.zip", "model__hidden_size": 96}, r"model\.hidden_size is 64 in that model and 96 in"),
        (
            {"train__init": "earlier", "model__num_heads": 4, "model__num_kv_heads": 2},
            r"train\.init .*: model\.num_heads is 2 in that model and 4 in this run; give this run the values of that",
        ),
        ({"train__init": "earlier", "model__kind": "context_mlp"}, "model.kind is transformer in that model"),
        (
            {"train__init": "context", "model__kind": "context_attention", "model__embedding_size": 128,
             "model__num_heads": 4, "model__hidden_sizes": [256]},
            "model.positions is sinusoidal in that model and rotary in this run",
        ),
        ({"train__init": "earlier", "tokenize__tokenizer": "other.json"}, r"train\.init .*: its tokenizer .* differs"),
        ({"tokenize__tokenizer": "none.json"}, r"tokenize\.tokenizer: .*none\.json cannot be read \(no such file\)"),
        ({"tokenize__tokenizer": "text.json"}, r"text\.json: not a tokenizer\.json"),
        ({"train__embeddings": "none.csv"}, r"train\.embeddings: .*none\.csv cannot be read \(no such file\)"),
        ({"train__embeddings": "e.csv"}, "vectors of 2 numbers, but model.embedding_size=32; set it to 2"),
        ({"train__embeddings": "broken.csv"}, r"broken\.csv:2: the vector has values that are not numbers"),
        (
            {"train__embeddings": "words.csv", "tokenize__tokenizer": "own.json"},
            r"words\.csv: has none of the vocabulary's 300 tokens",
        ),
        ({"generate__prompts_file": "none.txt"}, r"generate\.prompts_file: .* cannot be read"),
        ({"generate__prompts_file": "empty.txt"}, "holds no prompt"),
        ({"generate__dtype": "int8", "model__kind": "context_mlp"}, "int8 needs model.kind=transformer"),
        ({"generate__dtype": "int8", "model__hidden_size": 63}, "int8 needs a model.hidden_size that is a multiple"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(folder, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        start(folder, **settings)
    assert "\n" not in str(caught.value)
    assert not store.exists(Lake((folder / "lake").as_uri()).run("later").config)


@pytest.mark.parametrize(
    "settings",
    [
        {"train__init": "earlier", "tokenize__tokenizer": "own.json", "model__rope_theta": 500.0, "windows__size": 24},
        {"train__init": "model.zip", "tokenize__tokenizer": "own.json"},
        {"train__init": "champion-or-scratch"},
        {"generate__dtype": "int8"},
    ],
)
def test_what_fits_is_accepted(folder, settings, request):
    run = start(folder, request.node.name, **settings)
    assert read_config(run).windows.size in (16, 24)


def test_a_vocabulary_that_is_learned_is_checked_before_windows_are_cut(folder, caplog):
    run = start(folder, "learned", train__init="earlier")
    assert "this run learns one, which is the same only if the text is the same" in caplog.text
    run_step("tokenize", run, read_config(run), InlineEngine())
    with pytest.raises(InputError, match=r"train\.init .*: its tokenizer .* differs from this run's"):
        run_step("windows", run, read_config(run), InlineEngine())
    assert "windows" not in store.read_json(run.datasets)
    assert "differs from this run's" in store.read_json(run.step_stats("windows"))["error"]


def test_the_step_checks_by_itself(folder):
    run = start(folder, "alone", train__embeddings="words.csv")
    (folder / "words.csv").rename(folder / "moved.csv")
    with pytest.raises(InputError, match=r"train\.embeddings: .*words\.csv cannot be read"):
        run_step("tokenize", run, read_config(run), InlineEngine())
    (folder / "moved.csv").rename(folder / "words.csv")
    assert not store.exists(run.datasets)


def test_prompts_that_do_not_fit_the_context_are_said_early(folder, caplog):
    caplog.set_level(logging.WARNING, "jobs")
    settings = {"generate__prompts_file": "long.txt", "generate__prompt_unit": "file"}
    start(folder, "long", tokenize__tokenizer="own.json", **settings)
    assert "1 of 1 prompts do not fit the context: the longest has" in caplog.text
    assert "of which the last 16 are read" in caplog.text


def test_settings_without_effect_are_said(folder, caplog):
    start(folder, "inert", tokenize__lowercase=True, tokenize__field="body", train__beta1=0.5, train__optimizer="sgd")
    lines = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
    assert [line.partition("=")[0] for line in lines] == ["tokenize.field", "tokenize.lowercase", "train.beta1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train__init": "earlier"}, r"train\.init .*: its tokenizer .* differs"),
        ({"train__embeddings": "words.csv"}, r"words\.csv: has none of the vocabulary's \d+ tokens"),
        ({"train__embeddings": "e.csv"}, "vectors of 2 numbers, but model.embedding_size=32"),
    ],
)
@pytest.mark.parametrize("origin", ["champion", "run"])
def test_what_does_not_fit_an_inherited_tokenizer_is_refused_early(folder, tmp_path, origin, settings, message):
    lake = Lake(to_uri(str(tmp_path / "lake")))
    inherited = train_tokenizer("another text than that " * 99)
    write_inherited(lake, folder, origin, inherited.json)
    for info in store.list_files(Lake(to_uri(str(folder / "lake"))).run("earlier").model):
        store.write_bytes(join(lake.run("earlier").model, base_name(info.uri)), store.read_bytes(info.uri))
    before = {info.uri for info in store.list_files(lake.uri)}
    with pytest.raises(InputError, match=message) as caught:
        start(folder, lake=tmp_path / "lake", tokenize__tokenizer="inherit", **settings)
    assert "\n" not in str(caught.value)
    assert {info.uri for info in store.list_files(lake.uri)} == before


@pytest.mark.parametrize(("origin", "error"), [("champion", InputError), ("run", DamagedError)])
def test_a_damaged_tokenizer_is_not_inherited(folder, tmp_path, origin, error):
    """A champion's file has no manifest beside it here; the tokens of a run have one, which names its size."""
    lake = Lake(to_uri(str(tmp_path / "lake")))
    uri = write_inherited(lake, folder, origin, train_tokenizer().json)
    store.write_bytes(uri, b"{")
    with pytest.raises(error, match=r"tokenizer\.json: (not a tokenizer|has 1 bytes)") as caught:
        start(folder, lake=tmp_path / "lake", tokenize__tokenizer="inherit")
    assert "\n" not in str(caught.value)
    assert not store.exists(lake.run("later").config)


def write_inherited(lake, folder, origin, tokenizer_json):
    """Write what a run inherits its tokenizer from: a champion, or an earlier run on the text; return its URI."""
    if origin == "champion":
        model = join(lake.models, "m")
        store.write_json(lake.pipeline("local").champion, {"model": "m", "run_id": "r"})
        store.write_bytes(join(model, "tokenizer.json"), tokenizer_json)
        return join(model, "tokenizer.json")
    run = lake.run("first")
    store.write_bytes(run.config, resolve(to_uri(str(folder / "a.txt")), "tiny", {}).to_json().encode())
    store.write_json(run.datasets, {"tokens": "f"})
    uri = lake.dataset("tokens", "f")
    entry = store.write_file(uri, "tokenizer.json", tokenizer_json)
    store.publish_manifest(uri, Manifest("tokens", "f", (entry,), {}, {"how": {}}))
    return join(uri, "tokenizer.json")


def test_a_run_with_a_vocabulary_of_its_own_may_go_on_without_a_word(folder, caplog):
    """Its tokens are those of an earlier run for others alone."""
    settings = {"tokenize__tokenizer": "inherit", "tokenize__vocab_size": 300, "spark__executors": 2}
    settings |= {"train__workers": 1, "lake": "another lake"}
    run = start(folder, "again", **settings)
    run_step("tokenize", run, read_config(run), InlineEngine())
    caplog.clear()
    warn_inert_in_step("tokenize", run, read_config(run))
    assert start(folder, "again", **settings) == run
    assert "tokenize" not in caplog.text
    start(folder, "next", **settings)
    warn_inert_in_step("tokenize", run_of(folder, "next"), read_config(run_of(folder, "next")))
    assert caplog.text.count("tokenize.vocab_size=300 has no effect: it acts only with a vocabulary that is") == 2


def test_sizes_of_executors_without_spark_are_said(folder, caplog):
    sizes = {"spark.executors": 2, "spark.executor_cores": 2}
    values = TINY_MODEL | sizes
    start_run(Lake((folder / "lake").as_uri()).run("sizes"), str(folder / "a.txt"), "tiny", values, engine="inline")
    for key in sizes:
        assert f"{key}=2 has no effect: it acts only with --engine spark or a run of the DAG" in caplog.text


def test_a_model_that_appears_later_does_not_stop_a_training_that_has_begun(folder):
    run = start(folder, "begun", train__init="champion-or-scratch")
    store.write_json(join(run.train, "start.json"), {"init": None})
    lake = Lake(run.lake_uri)
    for info in store.list_files(lake.run("context").model):
        store.write_bytes(join(lake.models, "one", base_name(info.uri)), store.read_bytes(info.uri))
    store.write_json(lake.pipeline().champion, {"model": "one", "run_id": "r"})
    assert start(folder, "begun", train__init="champion-or-scratch") == run
    with pytest.raises(InputError, match=r"model\.kind is context_attention in that model"):
        start(folder, "not begun", train__init="champion-or-scratch")
    store.delete_file(lake.pipeline().champion)
