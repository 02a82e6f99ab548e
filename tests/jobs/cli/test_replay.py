"""The command ``replay``: the same weights again, whatever has changed since, and what cannot be made again."""

import json
from functools import partial

import pytest

from jobs.cli.main import main
from jobs.config import of_run
from jobs.lake import store
from jobs.lake.champion import promote_by_hand, read_champion
from jobs.lake.layout import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.models import LINEAGE
from jobs.lake.uri import join
from jobs.model_io.lineage import read_lineage
from jobs.training.record import Record
from tests.support.prose import prose

pytestmark = pytest.mark.slow

SMALL = {
    "tokenize.vocab_size": 300, "windows.size": 16, "model.embedding_size": 16, "model.hidden_size": 32,
    "model.num_layers": 1, "train.workers": 1, "train.max_tokens": 20 * 8 * 16, "train.batch_size": 8,
    "train.eval_every": 7, "train.epochs": 10_000, "generate.num_samples": 1, "generate.max_new_words": 3,
}  # fmt: skip
BY_THE_CLOCK = {"train.max_tokens": None, "train.max_seconds": 5}


def write(folder, name="a.txt", seed=1, words=6000):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(prose(seed, words))


@pytest.fixture
def home(tmp_path):
    """A lake, and a corpus of one file beside it."""
    write(tmp_path / "texts")
    return Lake((tmp_path / "lake").as_uri())


def make(home, run_id, **changes):
    """Run the pipeline on the corpus beside the lake; return the run."""
    settings = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    corpus = home.uri.replace("/lake", "/texts")
    words = ["run", "--corpus", corpus, "--lake", home.uri, "--preset", "tiny", "--run-id", run_id]
    assert main([*words, *options]) == 0
    return home.run(run_id)


def replay(home, run_id, *options):
    return main(["replay", run_id, "--lake", home.uri, *options])


def weights(run):
    manifest = store.read_manifest(run.model)
    data = store.read_file(run.model, manifest.entry("model.safetensors"))
    return FileEntry.of("model.safetensors", data).sha256


def assert_equal(home, source, capsys):
    """Replay a run, and assert that the weights are the same, and that the command says so."""
    capsys.readouterr()
    assert replay(home, source.run_id, "--run-id", "again") == 0
    again = home.run("again")
    assert weights(again) == weights(source)
    line = f"equal: {again.folder} has the weights of {source.folder} (sha256 {weights(source)})\n"
    assert capsys.readouterr().out == line
    return again


def promote(run, pipeline="default"):
    promote_by_hand(run, Lake(run.lake_uri).pipeline(pipeline), "ann", "better", {})
    return read_champion(Lake(run.lake_uri).pipeline(pipeline))[0]


def test_a_model_says_what_made_it_and_is_made_again(home, capsys, caplog):
    run = make(home, "r")
    lineage = read_lineage(run.model)
    written = store.read_json(run.config)
    assert lineage.config == {key: value for key, value in written.items() if key not in of_run.DEPLOYMENT}
    assert lineage.datasets == store.read_json(run.datasets)
    assert (lineage.corpus["files"], lineage.tokenizer["from"], lineage.start) == (1, "trained", None)
    assert store.exists(join(home.uri, lineage.corpus["listed_in"]))
    assert lineage.machine["workers"] == 1
    store.delete_folder(join(home.uri, "datasets"))
    again = assert_equal(home, run, capsys)
    assert f"next: python -m jobs runs compare {run.folder} {again.folder} --lake" in caplog.text
    assert list(lineage.differences(read_lineage(again.model))) == []
    champion = promote(run)
    assert read_lineage(champion.model_uri) == lineage
    assert main(["champion", "show", "--lake", home.uri]) == 0
    shown = capsys.readouterr().out
    assert f"corpus\t1 file, {lineage.corpus['bytes']:,} bytes, sha256 {lineage.corpus['sha256']}\n" in shown
    assert "started from\trandom weights\n" in shown
    assert "| started from | random weights |" in store.read_bytes(join(run.model, "README.md")).decode()
    assert replay(home, "r", "--run-id", "again") == 0  # which goes on with the one that is there


@pytest.mark.long
def test_a_replay_starts_from_the_champion_of_then_with_its_tokenizer(home, tmp_path, capsys):
    first = make(home, "first", windows__split="fixed")
    champion = promote(first)
    write(tmp_path / "texts", "b.txt", seed=2)
    settings = {"windows__split": "fixed", "train__init": "champion", "tokenize__tokenizer": "inherit"}
    night = make(home, "night", **settings)
    assert read_lineage(night.model).evaluation_set == "00000001"
    write(tmp_path / "texts", "c.txt", seed=3)
    make(home, "later", **settings)
    (tmp_path / "texts" / "c.txt").unlink()
    start = read_lineage(night.model).start
    assert (start.uri, start.run, start.weights) == (champion.model_uri, first.folder, weights(first))
    assert promote(night).model != champion.model
    again = assert_equal(home, night, capsys)
    assert store.read_json(again.start)["init"] == champion.model_uri


@pytest.mark.long
def test_a_replay_takes_the_tokenizer_that_was_inherited(home, tmp_path, capsys):
    champion = promote(make(home, "first"), "local")
    write(tmp_path / "texts", "a.txt", seed=3)
    night = make(home, "night", tokenize__tokenizer="inherit")
    assert read_lineage(night.model).tokenizer["from"] == f"champion {champion.run_id}"
    write(tmp_path / "texts", "a.txt", seed=4)
    promote(make(home, "later", tokenize__vocab_size=290), "local")
    write(tmp_path / "texts", "a.txt", seed=3)
    assert_equal(home, night, capsys)


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train.strategy": "diloco", "train.workers": 2, "train.sync_every": 7},
        {"train.strategy": "average", "train.workers": 2, "train.sync_every": 7, "train.allreduce_steps": 3},
    ],
    ids=["allreduce", "diloco", "average after a warm-up"],
)
def test_a_run_that_the_clock_ended_is_made_again(home, capsys, settings):
    run = make(home, "timed", **BY_THE_CLOCK, **settings)
    config = of_run.read_config(run).train
    record = Record.of_run(run, config)
    assert 2 < len(record.learning_rates) < 10_000
    assert bool(record.round_ends) == ("train.strategy" in settings)
    again = assert_equal(home, run, capsys)
    assert Record.of_run(again, config) == record


def edit_lineage(run, edit, fingerprint=None):
    """Replace the lineage of a model, or leave it out if `edit` returns None."""
    manifest = store.read_manifest(run.model)
    files = [entry for entry in manifest.files if entry.name != LINEAGE]
    if (values := edit(store.read_json(join(run.model, LINEAGE)))) is not None:
        files.append(store.write_file(run.model, LINEAGE, json.dumps(values).encode()))
    store.delete_file(join(run.model, "_manifest.json"))
    store.publish_manifest(run.model, Manifest("model", fingerprint or manifest.fingerprint, tuple(files)))


def test_other_weights_are_said_with_what_differs(home, capsys, caplog):
    run = make(home, "r")
    edit_lineage(run, lambda values: values | {"software": values["software"] | {"torch": "1.0"}}, "0" * 64)
    capsys.readouterr()
    assert replay(home, "r", "--run-id", "again") == 1
    shown = capsys.readouterr().out
    here, there = f"lab/local/again (sha256 {weights(run)})", f"lab/local/r (sha256 {'0' * 64})"
    assert shown.startswith(f"not equal: here {here}, there {there}: ")
    assert ": torch 1.0 there, " in shown
    assert "the weights may differ: torch 1.0 there, " in caplog.text


def assert_refused(home, capsys, run_id, *words, options=()):
    before = store.list_folders(join(home.runs, "lab", "local"))
    capsys.readouterr()
    assert replay(home, run_id, *options) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    for word in words:
        assert word in shown.err.splitlines()[-1]
    assert store.list_folders(join(home.runs, "lab", "local")) == before


def test_what_cannot_be_made_again_is_refused_before_anything_is_written(home, tmp_path, capsys):
    run = make(home, "r")
    refused = partial(assert_refused, home, capsys)
    text = tmp_path / "texts" / "a.txt"
    data = text.read_bytes()
    text.write_bytes(data.replace(b"e", b"a", 1))
    refused("r", "the corpus is not the one that lab/local/r was trained on (a.txt has changed)")
    write(tmp_path / "texts", "0.txt", words=100)
    refused("r", "(0.txt is new)")
    (tmp_path / "texts" / "0.txt").unlink()
    text.rename(text.with_name("b.txt"))
    refused("r", "(a.txt is gone)")
    text.with_name("b.txt").unlink()
    refused("r", "texts")
    text.write_bytes(data)
    refused("unknown", "has no run 'unknown'")
    refused("r", "this run exists and is not a replay", options=("--run-id", "r"))
    edit_lineage(run, lambda _: None)
    refused("r", "has no lineage, since an earlier version made this model")
    store.delete_file(join(run.model, "_manifest.json"))
    refused("r", "this run has no model to replay")


def test_a_model_to_start_from_that_is_gone_is_said(home, capsys):
    first = make(home, "first")
    make(home, "second", train__init="first", tokenize__tokenizer="inherit")
    store.delete_folder(first.model)
    assert_refused(home, capsys, "second", f"{first.model}: the model that training started from", "is gone")
