"""A lake that version 0.1 wrote is read: its run, champion, model, datasets and statistics."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load

from jobs.cli.main import main
from jobs.config import STEPS, Config
from jobs.datasets.windows import WindowSet
from jobs.lake import store
from jobs.lake.cache import verified_file
from jobs.lake.champion import read_champion
from jobs.lake.layout import Lake
from jobs.lake.runs import find_run
from jobs.lake.uri import base_name, join
from jobs.model_io.folder import load_model
from jobs.statistics.writer import read_steps

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
SETTINGS = (
    "tokenize.vocab_size=300", "windows.size=16", "model.embedding_size=16", "model.hidden_size=16",
    "model.num_layers=1", "model.num_heads=2", "model.num_kv_heads=1", "train.workers=1", "train.batch_size=8",
    "train.epochs=4", "train.checkpoint_every=30", "train.eval_every=20", "train.dtype=float32",
    "generate.num_samples=1", "generate.max_new_tokens=8",
)  # fmt: skip


@pytest.fixture
def lake(tmp_path):
    """A copy of the lake, and of its corpus, whose place its configurations name."""
    shutil.copytree(DATA / "lake-0.1", tmp_path / "lake")
    shutil.copy(DATA / "scandal.txt", tmp_path / "corpus.txt")
    for path in (tmp_path / "lake").glob("runs/*/config.json"):  # not those in checkpoints, which have hashes
        path.write_text(path.read_text().replace("file:///tmp/corpus.txt", (tmp_path / "corpus.txt").as_uri()))
    return Lake((tmp_path / "lake").as_uri())


def run_again(tmp_path):
    corpus, settings = tmp_path / "corpus.txt", [word for setting in SETTINGS for word in ("--set", setting)]
    options = ["--preset", "tiny", "--engine", "inline", "--run-id", "old", *settings]
    return main(["run", "--corpus", str(corpus), "--lake", str(tmp_path / "lake"), *options])


def test_datasets_verify(lake):
    fingerprints = store.read_json(find_run("old", lake).datasets)
    folders = [
        lake.dataset("tokens", fingerprints["tokens"]),
        lake.dataset("windows", fingerprints["windows"]),
        find_run("old", lake).train,
    ]
    for folder in [*folders, find_run("old", lake).model, find_run("old", lake).generate]:
        manifest = store.read_manifest(folder)
        store.verify_sizes(folder, manifest)
        assert all(verified_file(folder, entry) for entry in manifest.files)


def test_the_windows_can_be_read(lake):
    windows = WindowSet.open(lake, store.read_json(find_run("old", lake).datasets)["windows"], "valid")
    assert windows.size == 16
    assert windows.read(np.arange(8)).shape == (8, 17)


def test_the_configuration_is_read(lake):
    run = find_run("old", lake)
    config = Config.from_json(store.read_bytes(run.config).decode(), run.config)
    assert (config.model.embedding_size, config.train.epochs) == (16, 4)


def test_the_statistics_are_read(lake):
    stats = read_steps(find_run("old", lake))
    assert list(stats) == [step for step in STEPS if step not in ("embed", "score", "evaluate")]
    assert stats["train"]["valid_loss"] == pytest.approx(4.4199, abs=1e-4)


def test_the_champion_is_the_model_of_the_run(lake):
    champion, _ = read_champion(lake.pipeline())
    assert champion.run_id == "old"
    assert champion.metrics["bits_per_byte"] == pytest.approx(4.5233, abs=1e-4)
    promoted, _ = load_model(champion.model_uri)
    trained, _ = load_model(find_run("old", lake).model)
    assert promoted.num_parameters == trained.num_parameters


@pytest.mark.parametrize("model", ["old", "champion"])
def test_models_generate_text(lake, tmp_path, model, capsys):
    options = ["--lake", str(tmp_path / "lake"), "--prompt", "To Sherlock", "--max-new-tokens", "5"]
    assert main(["sample", "--model", model, *options]) == 0
    assert capsys.readouterr().out.startswith("To Sherlock")


def test_a_finished_run_is_found(lake, tmp_path):
    run = find_run("old", lake)
    model, metrics = store.read_bytes(join(run.model, "_manifest.json")), store.read_bytes(run.metrics)
    assert run_again(tmp_path) == 0
    assert store.read_bytes(join(run.model, "_manifest.json")) == model
    assert store.read_bytes(run.metrics) == metrics


def read_weights(run):
    return load(store.read_file(run.model, store.read_manifest(run.model).entries("model.safetensors")[0]))


def test_an_interrupted_run_is_refused_since_its_windows_are_made_anew(lake, tmp_path, capsys):
    """In 0.1, validation had 5% of these windows instead of 20%, so the checkpoint has seen what is validation now."""
    run = find_run("old", lake)
    store.delete_file(join(run.train, "_manifest.json"))
    store.delete_file(run.metrics)
    for folder in (run.checkpoint(76), run.model, run.generate):
        store.delete_folder(folder)
    assert sorted(store.list_folders(run.checkpoints)) == [base_name(run.checkpoint(60))]
    assert run_again(tmp_path) == 2
    assert f"{run.checkpoint(60)}: was made with another configuration or other data" in capsys.readouterr().err
    store.delete_folder(run.train)  # as the message says
    assert run_again(tmp_path) == 0
    assert read_steps(run)["windows"]["valid_window_share"] == pytest.approx(0.2, abs=0.03)
