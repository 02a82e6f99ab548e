"""The demo: what it refuses before anything starts, and how it sums up a run."""

import os
import subprocess
import sys

from infra import demo
from jobs.lake import store
from jobs.lake.layout import STEPS, Lake
from jobs.lake.uri import join, to_uri


def test_a_missing_text_is_one_line_and_starts_nothing(tmp_path):
    environment = {**os.environ, "CORPUS": str(tmp_path / "no such.txt")}
    done = subprocess.run(
        [sys.executable, "-m", "infra.demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"demo: {tmp_path}/no such.txt: no such file or folder; give a text: make demo CORPUS=path/to/text.txt"
    ]


def test_summary_compares_with_the_baseline_and_tells_what_was_used_again(tmp_path):
    run = Lake(to_uri(str(tmp_path / "my lake"))).run("r")
    figures = {"valid_loss": 4.5, "unigram_loss": 6.5, "bits_per_byte": 2.1, "valid_accuracy": 0.25}
    figures |= {"num_parameters": 1234567, "tokens_per_second": 8765.4}
    steps = {step: {"reused": step in ("tokenize", "windows")} for step in STEPS}
    store.write_json(join(run.stats, "stats.json"), {**figures, "steps": steps, "seconds": dict.fromkeys(STEPS, 7.0)})
    store.write_bytes(join(run.generate, "samples.jsonl"), b'{"prompt": "The man", "text": " sings"}\n')
    said = demo.summary(run)
    assert "4.500 nats per token; the unigram baseline has 6.500, so the model is 2.000 better" in said
    assert "1,234,567 parameters, 8,765 tokens/s" in said
    assert "tokenize and windows: text, settings and code are unchanged" in said
    assert "1. The man sings" in said
    assert f"{tmp_path}/my lake/runs/r/model" in said


def test_progress_is_said_when_it_is_new_and_else_now_and_then(tmp_path, capsys, monkeypatch):
    clock = iter((0.0, 1.0, 3.0, 5.0, 17.0, 18.0, 19.0))
    monkeypatch.setattr(demo.time, "monotonic", lambda: next(clock))
    watch = demo.Watch(Lake(tmp_path.as_uri()).run("r"), "http://127.0.0.1:1")
    for step in (100, 120, 140, 260):
        watch._tell("train", f"step {step}/500  loss 4.{step}")
    watch._tell("train", "validation loss 3.9")
    watch._tell("train", "validation loss 3.9")
    assert capsys.readouterr().out.splitlines() == [
        "[0:01] train     step 100/500  loss 4.100",
        "[0:17] train     step 260/500  loss 4.260",
        "[0:18] train     validation loss 3.9",
    ]
