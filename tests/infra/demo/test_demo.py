"""The demo: a wrong corpus, the display of progress and the summary."""

import io
import os
import subprocess
import sys

import pytest

from infra.demo import __main__ as demo
from infra.demo.__main__ import ProgressDisplay, summary
from jobs.config import STEPS
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.store import ENVIRONMENT
from jobs.lake.uri import join, local_path, to_uri
from jobs.results.summary import record_failure
from tests.support.waiting import PATIENCE_SECONDS


def test_missing_corpus_is_one_line_and_starts_nothing(tmp_path):
    environment = {**os.environ, "CORPUS": str(tmp_path / "no such.txt")}
    done = subprocess.run(
        [sys.executable, "-m", "infra.demo"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"demo: {(tmp_path / 'no such.txt').as_uri()}: no file there, and no folder with files; give the path or URI of"
        " a text file or folder"
    ]


@pytest.fixture
def run(tmp_path):
    """A finished run, as far as the summary reads it."""
    run = Lake(to_uri(str(tmp_path / "my lake"))).run("r")
    stats = {
        "valid_loss": 4.5,
        "unigram_loss": 6.5,
        "bits_per_byte": 2.1,
        "valid_accuracy": 0.25,
        "num_parameters": 1234567,
        "tokens_per_second": 8765.4,
        "steps": {
            **{step: {"reused": step in ("tokenize", "windows")} for step in STEPS},
            "train": {"num_steps": 1390, "stopped_by_time": True},
        },
        "seconds": dict.fromkeys(STEPS, 7.0),
    }
    store.write_json(join(run.stats, "stats.json"), stats)
    store.write_bytes(join(run.generate, "samples.jsonl"), b'{"prompt": "The man", "text": " sings\\nat night"}\n')
    return run


def test_summary_shows_quality_samples_and_reused_datasets(run):
    text = summary(run)
    assert "4.500 nats per token (unigram baseline: 6.500)" in text
    assert "1,234,567 parameters" in text
    assert "8,765 tokens/s" in text
    assert "training          1,390 steps, ended by train.max_seconds" in text
    assert "reused            tokenize, windows (text, settings and code are unchanged)" in text
    assert "1. The man sings\n     at night" in text


def test_a_failed_run_is_explained_by_its_cause(tmp_path):
    run, log = Lake(to_uri(str(tmp_path / "lake"))).run("r"), tmp_path / "dag.log"
    log.write_text("a line of Airflow\n" * 30 + "ModuleNotFoundError: No module named 'nightjar'\n")
    assert demo.explain_failure(run, log).endswith("nightjar'")
    record_failure(run, "preflight: corpus: too few bytes", ENVIRONMENT)
    assert demo.explain_failure(run, log) == f"preflight: corpus: too few bytes\n  the log of all tasks: {log}"


def test_summary_ends_with_commands_to_try(run, tmp_path):
    text = summary(run).partition("\nNext\n")[2]
    assert f'sample --lake "{tmp_path}/my lake" --model r --prompt' in text
    assert f"{tmp_path}/my lake/runs/lab/local/r/stats/report.html" in text
    assert "make demo CORPUS=path/to/text.txt" in text
    assert f'export --lake "{tmp_path}/my lake" --model r --format gguf' in text
    assert text.endswith("make airflow")


def test_a_terminal_of_any_encoding_shows_the_results(run, monkeypatch):
    store.write_bytes(join(run.stats, "metrics.csv"), b'"step","valid_loss"\n1,5.5\n2,4.5\n')
    store.write_bytes(join(run.generate, "samples.jsonl"), '{"prompt": "Blåbær", "text": " 蓝莓"}\n'.encode())
    output = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(demo, "_demo", lambda _corpus: 0 * sys.stdout.write(demo.summary(run)))
    monkeypatch.setattr(demo, "LAKE", local_path(run.lake_uri))
    monkeypatch.setattr(demo.sample_corpus, "provide", lambda *_: "corpus")
    monkeypatch.delenv("CORPUS", raising=False)
    assert demo.main() == 0
    output.flush()
    text = output.buffer.getvalue().decode("ascii")
    assert r"1. Bl\xe5b\xe6r \u84dd\u8393" in text
    assert r"loss over time    \u2588\u2581 from 5.50 to 4.50" in text


def test_similar_messages_are_printed_every_few_seconds(tmp_path, capsys):
    clock = iter((0.0, 1.0, 3.0, 5.0, 17.0, 18.0, 19.0))
    display = ProgressDisplay(Lake(tmp_path.as_uri()).run("r"), "http://127.0.0.1:1", lambda: next(clock))
    for step in (100, 120, 140, 260):
        display.show("train", f"step {step}/500  loss 4.{step}")
    display.show("train", "validation loss 3.9")
    display.show("train", "validation loss 3.9")
    assert capsys.readouterr().out.splitlines() == [
        "[0:01] train     step 100/500  loss 4.100",
        "[0:17] train     step 260/500  loss 4.260",
        "[0:18] train     validation loss 3.9",
    ]
