"""A configuration file and the steps of a new run on the command line."""

import pytest

from jobs.cli.main import main
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import to_uri
from tests.support.slots import text_of_slots

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my text.txt").write_text(text_of_slots(), "utf-8")
    (tmp_path / "my.toml").write_text(
        f'corpus = "{tmp_path / "my text.txt"}"\npreset = "tiny"\nwindows.size = 32\n'
        '[tokenize]\nkind = "word"\nvocab_size = 600\n[train]\nseed = 3\nepochs = 2.5\n'
    )
    return tmp_path


def jobs(folder, *arguments):
    return main([*arguments, "--lake", str(folder / "lake"), "--run-id", "r", "--engine", "inline"])


def config_of(folder):
    return store.read_json(Lake(to_uri(str(folder / "lake"))).run("r").config)


def test_a_step_starts_its_run_from_a_file_and_the_next_one_continues_it(folder, monkeypatch, capsys, caplog):
    monkeypatch.setenv("NIGHTJAR_TRAIN_SEED", "4")
    monkeypatch.setenv("NIGHTJAR_TRAIN_EPOCHS", "3.5")
    chosen = ("--config-file", str(folder / "my.toml"), "--set", "train.seed=5", "--set", "tokenize.train_bytes=2048")
    assert jobs(folder, "tokenize", *chosen) == 0, capsys.readouterr().err
    assert caplog.text.count("tokenize.train_bytes=2048 has no effect: it acts only with tokenize.kind=bpe") == 1
    config = config_of(folder)
    assert (config["preset"], config["windows"]["size"], config["tokenize"]["kind"]) == ("tiny", 32, "word")
    assert (config["train"]["seed"], config["train"]["epochs"], config["train"]["max_tokens"]) == (5, 3.5, 400_000)
    assert jobs(folder, "windows", *chosen) == 0, capsys.readouterr().err
    assert set(store.read_json(Lake(to_uri(str(folder / "lake"))).run("r").datasets)) == {"tokens", "windows"}
    assert jobs(folder, "windows", "--config-file", str(folder / "my.toml")) == 2
    assert "exists with another configuration" in capsys.readouterr().err


def test_options_win_over_the_file(folder, capsys):
    (folder / "other.txt").write_text(text_of_slots(), "utf-8")
    file = ("--config-file", str(folder / "my.toml"))
    assert jobs(folder, "tokenize", *file, "--corpus", str(folder / "other.txt"), "--preset", "demo") == 0
    config = config_of(folder)
    assert config["corpus"].endswith("/other.txt")
    assert (config["preset"], config["model"]["num_layers"], config["windows"]["size"]) == ("demo", 4, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--preset", "tiny"), "no text to train on; name it by --corpus, or by the key corpus in the file"),
        (("run", "--config-file", "none.toml"), "none.toml: cannot be read"),
        (("train", "--config", "lake/runs/r/config.json"), "--run-id: cannot be combined with --config, whose run"),
    ],
)
def test_what_lacks_or_clashes_is_one_line(folder, arguments, message, capsys):
    assert jobs(folder, *arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "lake").exists()


def test_a_step_needs_a_run(capsys):
    assert main(["train"]) == 2
    assert "train: no run is named; give --config URI or --run-id NAME" in capsys.readouterr().err
