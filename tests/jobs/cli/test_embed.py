"""``python -m jobs embed``: its output, its errors, and equal vectors on both engines."""

import shlex

import numpy as np
import pytest

from jobs.cli.main import main
from jobs.config import SparkConfig, override
from jobs.embeddings.files import read_embeddings
from jobs.engine.inline import InlineEngine
from jobs.engine.spark import SparkEngine
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, to_uri
from jobs.pipeline import read_config, run_step, start_run
from tests.support.slots import text_of_slots

pytestmark = pytest.mark.slow

SETTINGS = {"tokenize.vocab_size": 600, "embed.epochs": 2, "embed.sync_tokens": 10_000, "embed.subsample": 0}
CHOSEN = ("--set", "embed.size=16")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a tokenized run in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a läke")
    (folder / "text.txt").write_text(text_of_slots(), "utf-8")
    home = to_uri(str(folder / "lake"))
    run = start_run(Lake(to_uri(str(home))).run("r"), str(folder / "text.txt"), "tiny", SETTINGS)
    run_step("tokenize", run, read_config(run), InlineEngine())
    return run


def test_embed_prints_the_neighbours_of_words(run, capsys, caplog):
    assert (
        main(
            [
                "embed",
                "--run",
                "r",
                "--lake",
                run.lake_uri,
                *CHOSEN,
                "--neighbours",
                "sailor",
                "--neighbours",
                "village",
            ]
        )
        == 0
    )
    place, sailor, village = capsys.readouterr().out.splitlines()
    folder = Lake(run.lake_uri).dataset("embeddings", store.read_json(run.datasets)["embeddings"])
    assert place == f"embeddings {folder}"
    assert set(sailor.split()[1:6:2]) == {"captain", "farmer", "baker"}
    assert set(village.split()[1:6:2]) == {"harbour", "market", "forest"}
    assert read_embeddings(folder).vectors.shape[1] == 16
    stats = store.read_json(run.step_stats("embed"))
    assert (stats["error"], stats["engine"], stats["size"]) == (None, "inline", 16)
    train = shlex.split(caplog.text.partition("next: python -m jobs ")[2])
    few = ("train.max_tokens=500", "train.workers=1", "train.eval_windows=4", "windows.size=8", "model.num_layers=1")
    settings = [part for value in (*few, "generate.num_samples=1", "train.batch_size=4") for part in ("--set", value)]
    assert main([*train, "--preset", "tiny", "--run-id", "next", *settings]) == 0, capsys.readouterr().err
    assert main(["embed", "--run", "r", "--lake", run.lake_uri, *CHOSEN]) == 0
    assert (
        f"next: python -m jobs embed --run {run.folder} --lake {run.lake_uri} --neighbours WORD"
        in caplog.text.replace("'", "")
    )


@pytest.mark.long
@pytest.mark.spark
def test_vectors_of_spark_equal_those_of_the_inline_engine(run):
    config = override(read_config(run), "embed", {"embed.size": 16})
    inline = learned(run, config, InlineEngine())
    engine = SparkEngine(SparkConfig(), master="local[2]")
    try:
        on_spark = learned(run, config, engine)
        assert "train embeddings, round 1" in {stage["description"] for stage in engine.stages()}
    finally:
        engine.stop()
    assert on_spark.tokens == inline.tokens
    assert np.allclose(on_spark.vectors, inline.vectors, atol=1e-3)  # equal but for rounding


def learned(run, config, engine):
    """Return the embeddings of a run, learned again."""
    store.delete_folder(join(run.lake_uri, "datasets/embeddings"))
    assert not run_step("embed", run, config, engine)["reused"]
    return read_embeddings(Lake(run.lake_uri).dataset("embeddings", store.read_json(run.datasets)["embeddings"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run", "r", "--set", "embed.sise=3"), "embed.sise: unknown key; did you mean embed.size?"),
        (("--run", "r", "--set", "embed.size=0"), "embed.size: input should be greater"),
        (
            ("--run", "r", "--set", "train.seed=3"),
            "train.seed: this command can only change settings of the section embed",
        ),
        (("--run", "r", "--neighbours", "zyx"), "'zyx' is not one token with a vector"),
        (("--run", "nowhere"), "has no run 'nowhere'"),
    ],
)
def test_wrong_input_is_one_line(run, capsys, arguments, message):
    assert main(["embed", "--lake", run.lake_uri, *arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("nightjar: ")
    assert message in last
