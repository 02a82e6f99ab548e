"""``python -m jobs run`` and single steps, in processes of their own: whole runs, and wrong input."""

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.config import EVALUATE, STEPS
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, local_path, to_uri
from jobs.metrics import metrics_of
from jobs.metrics.stats import STATISTICS
from jobs.statistics.writer import read_steps
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

SETTINGS = (
    "train.max_tokens=100000",
    "train.epochs=20",
    "train.eval_every=25",
    "windows.size=32",
    "windows.split=fixed",
    "generate.max_new_words=5",
    "train.embeddings=embed",
    "embed.size=64",
    "embed.epochs=1",
)
TRAINING = [step for step in STEPS if step != EVALUATE]


def jobs(*arguments, **environment):
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env={**os.environ, **environment},
    )


def run(corpus, lake_path, *arguments, settings=SETTINGS):
    chosen = [argument for setting in settings for argument in ("--set", setting)]
    common = ("--corpus", corpus, "--lake", lake_path, "--preset", "tiny", "--run-id", "r", "--engine", "inline")
    return jobs("run", *common, *chosen, *arguments)


def assert_refused(done, *words, code=2):
    """Assert that one line on stderr says what is wrong, where, and what to do."""
    errors = [line for line in done.stderr.splitlines() if line.startswith(("nightjar: ", "python -m jobs"))]
    assert done.returncode == code, done.stderr
    assert len(errors) == 1
    assert done.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Return a file with 40 KB of text in paragraphs: each word of a small vocabulary is followed by one of two."""
    words = "the man starts with a lantern and walks over old stone bridges while rain falls on fields"
    words = words.split()
    drawn = random.Random(1)
    lines = []
    for _ in range(600):
        places = [drawn.randrange(len(words))]
        while len(places) < 14:
            places.append((3 * places[-1] + drawn.randint(1, 2)) % len(words))
        lines.append(" ".join(words[place] for place in places) + ".")
    path = tmp_path_factory.mktemp("text") / "my text é.txt"
    path.write_text("\n\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    lake_path = tmp_path_factory.mktemp("a läke")
    return run(text, lake_path), Lake(to_uri(str(lake_path)))


@pytest.mark.long
def test_a_run_leaves_statistics_model_and_text(finished):
    done, home = finished
    assert done.returncode == 0, done.stderr
    assert "validation loss" in done.stdout
    folder = home.run("r")
    stats = store.read_json(join(folder.stats, "stats.json"))
    assert stats["valid_loss"] < stats["unigram_loss"]
    assert set(stats["seconds"]) == set(TRAINING)
    assert all(stats["steps"][step]["error"] is None for step in TRAINING)
    undescribed = [
        (step, name) for step in TRAINING for name in stats["steps"][step].keys() - set(metrics_of(STATISTICS[step]))
    ]
    assert undescribed == []
    files = ("train/metrics.jsonl", "train/_manifest.json", "generate/generated.txt", "generate/samples.jsonl")
    files += ("generate/_manifest.json", "model/model.safetensors", "model/config.json", "model/tokenizer.json")
    files += ("datasets.json", "config.json", "stats/stats.txt", "stats/metrics.csv", "stats/spark.csv")
    files += ("stats/executors.csv", "train/tensorboard/events.out.tfevents.nightjar")
    missing = [name for name in files if not store.exists(join(folder.uri, name))]
    assert missing == []


def test_settings_of_the_environment_apply_below_those_of_the_command(text, tmp_path):
    variables = {"NIGHTJAR_WINDOWS_SIZE": "100000", "NIGHTJAR_TRAIN_SEED": "7"}
    command = ("run", "--corpus", text, "--lake", tmp_path / "lake", "--preset", "tiny", "--run-id", "r")
    done = jobs(*command, "--set", "train.seed=8", **variables)
    assert_refused(done, "windows.size", "100000")
    done = jobs(*command, "--set", "train.seed=8", "--set", "windows.size=20000", **variables)
    assert "settings from the environment: train.seed=7, windows.size=100000" in done.stderr
    config = store.read_json(Lake(to_uri(str(tmp_path / "lake"))).run("r").config)
    assert (config["train"]["seed"], config["windows"]["size"]) == (8, 20000)


@pytest.mark.long
def test_a_finished_run_is_not_repeated(finished, text):
    _, home = finished
    before = {info.uri: info.size for info in store.list_files(home.uri) if "/stats/" not in info.uri}
    done = run(text, home.uri)
    assert done.returncode == 0, done.stderr
    stats = store.read_json(join(home.run("r").stats, "stats.json"))
    assert all(stats["steps"][step]["reused"] for step in TRAINING)
    after = {info.uri: info.size for info in store.list_files(home.uri) if "/stats/" not in info.uri}
    assert {uri for uri in after if "/progress/" not in uri} == {uri for uri in before if "/progress/" not in uri}


@pytest.mark.long
def test_a_run_with_another_configuration_is_refused(finished, text):
    _, home = finished
    assert_refused(run(text, home.uri, "--set", "train.seed=99"), "another configuration", "--run-id")


@pytest.mark.long
def test_sample_continues_the_prompt_of_a_run(finished):
    _, home = finished
    arguments = ("sample", "--model", home.run("r").uri, "--prompt", "The man", "--max-new-tokens", 5, "--seed", 3)
    first, second = jobs(*arguments), jobs(*arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("The man")
    assert len(first.stdout) > len("The man\n")
    assert first.stdout == second.stdout


def next_command(output):
    """Return the arguments of the command that a command advises: the line `next` of a run, or of a log."""
    [line] = [line for line in output.splitlines() if re.match(r"next |.* next: ", line)]
    program, _, arguments = re.sub(r"^(next +|.* next: )", "", line).partition("python -m jobs ")
    assert program == ""
    return shlex.split(arguments)


@pytest.mark.long
def test_each_command_names_one_to_go_on_with_which_works(finished, tmp_path):
    done, home = finished
    sample = next_command(done.stdout)
    assert sample[:3] == ["sample", "--lake", str(local_path(home.uri))]
    sampled = jobs(*sample, "--max-new-tokens", 2)
    assert (sampled.returncode, sampled.stdout[:7]) == (0, "The man"), sampled.stderr
    export = next_command(sampled.stderr)
    assert export[0] == "export"
    exported = jobs(*export[:-1], tmp_path / "a model.gguf")
    assert exported.returncode == 0, exported.stderr
    assert f"next: llama-cli -m '{tmp_path / 'a model.gguf'}' -p 'The man'" in exported.stderr
    written = jobs("report", "r", "--lake", home.uri, "--output", tmp_path)
    assert next_command(written.stderr)[:1] == ["sample"]
    assert jobs(*next_command(written.stderr), "--max-new-tokens", 2).returncode == 0


@pytest.mark.long
def test_the_model_of_a_run_is_used_without_training(finished, text):
    _, home = finished
    use = ("run", "--lake", home.uri, "--set", "use.model=r", "--run-id")
    done = jobs(*use, "generated", "--set", "generate.num_samples=1", "--set", "generate.max_new_words=3")
    assert done.returncode == 0, done.stderr
    [text_line] = [line for line in done.stdout.splitlines() if line.startswith("text ")]
    assert Path(text_line.split(maxsplit=1)[1]).read_text().startswith("[1] The man starts with")
    assert jobs(*next_command(done.stdout), "--max-new-tokens", 2).stdout.startswith("The man")
    done = jobs(*use, "evaluated", "--set", "use.task=evaluate", "--corpus", text)
    assert done.returncode == 0, done.stderr
    assert "bits per byte" in done.stdout.splitlines()[0]
    assert "text bits per byte" in jobs(*next_command(done.stdout)).stdout.replace("_", " ")
    evaluated = home.run("evaluated")
    assert list(read_steps(evaluated)) == ["evaluate"]
    assert_refused(jobs(*use, "x", "--set", "use.task=evaluate"), "no text to evaluate the model on", "--corpus")
    assert_refused(jobs(*use[:3], "--set", "use.model=nobody"), "use.model: nobody: no model found")


def bad_corpora(folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.txt").write_bytes(b" \n\n \n")
    (folder / "latin.txt").write_bytes(b"caf" + b"\xe9" + b" is closed\n\n" * 99)
    (folder / "short.txt").write_bytes(b"Too short.\n\nMuch too short.\n")
    (folder / "no text").mkdir(exist_ok=True)
    (folder / "no text" / "image.png").write_bytes(b"x")
    return {
        "missing": (folder / "nowhere.txt", ("nowhere.txt",)),
        "empty": (folder / "empty.txt", ("empty.txt", "empty")),
        "blank": (folder / "blank.txt", ("blank.txt",)),
        "not utf-8": (folder / "latin.txt", ("latin.txt", "3", "UTF-8")),
        "too short": (folder / "short.txt", ("give more text",)),
        "no text": (folder / "no text", ("no%20text", ".txt")),
    }


@pytest.mark.parametrize("case", ["missing", "empty", "blank", "not utf-8", "too short", "no text"])
def test_a_wrong_corpus_is_one_line(case, tmp_path):
    corpus, words = bad_corpora(tmp_path)[case]
    assert_refused(run(corpus, tmp_path / "lake"), *words)
    assert (tmp_path / "lake").exists() == (case in ("empty", "blank", "not utf-8", "too short"))
    manifests = [path for path in (tmp_path / "lake").rglob("_manifest.json") if path.parent.parent.name != "tokens"]
    assert manifests == []


def test_a_mistake_is_reported_before_large_libraries_are_loaded(tmp_path):
    arguments = ["run", "--corpus", str(tmp_path / "nowhere.txt"), "--lake", str(tmp_path / "lake")]
    heavy = {"awkward", "gigatoken", "numpy", "pyarrow", "pyspark", "tokenizers", "torch"}
    code = f"import sys; from jobs.cli.main import main; print(main({arguments}), {heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "train.batchsize=3"), ("train.batchsize: unknown key", "train.batch_size")),
        (("--set", "windows.size=0"), ("windows.size",)),
        (("--preset", "huge"), ("preset 'huge' does not exist", "tiny")),
        (("--lake", "hdfs://x/y"), ("unknown scheme 'hdfs'", "s3://bucket/prefix")),
        (("--lake", "/proc/lake"), ("cannot be written",)),
        (("--engine", "quantum"), ("--engine", "--help")),
    ],
)
def test_a_wrong_argument_is_one_line_and_writes_nothing(arguments, words, text, tmp_path):
    assert_refused(run(text, tmp_path / "lake", *arguments, settings=()), *words)
    assert not (tmp_path / "lake" / "runs").exists()


def test_a_step_without_a_configuration_is_one_line(tmp_path):
    missing = join(Lake(to_uri(str(tmp_path))).run("x").config)
    assert_refused(jobs("train", "--config", missing, "--engine", "inline"), "no such configuration")
    assert_refused(jobs("train", "--config", tmp_path / "x.json", "--engine", "inline"), "not a run's configuration")


@pytest.mark.long
def test_a_damaged_shard_is_named_and_exits_with_1(finished, text, tmp_path):
    done = run(text, tmp_path / "lake", "--set", "train.max_tokens=2000")
    assert done.returncode == 0, done.stderr
    home = Lake(to_uri(str(tmp_path / "lake")))
    datasets = store.read_json(home.run("r").datasets)
    shard = next((tmp_path / "lake" / "datasets" / "windows" / datasets["windows"] / "train").iterdir())
    shard.write_bytes(shard.read_bytes()[:-8])
    again = run(text, tmp_path / "lake", "--run-id", "s")
    assert_refused(again, shard.name, "delete", "run again", code=1)
    errors = [stats["error"] for stats in read_steps(home.run("s")).values()]
    assert any(shard.name in error for error in errors if error)
