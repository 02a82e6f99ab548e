"""Exit codes, and the one line that a wrong command gets."""

import inspect
import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from jobs.cli import main as command_line
from jobs.cli.main import main
from jobs.cli.model import sample
from jobs.cli.runner import run_app
from jobs.config import GenerateConfig, preset_names
from jobs.errors import DamagedError, InputError, NightjarError

HEAVY = ("torch", "pyspark", "pyarrow", "numpy", "botocore", "pydantic.main", "jobs.config")


def commands():
    """All commands by name."""
    return typer.main.get_command(command_line.app).commands


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "python -m jobs: missing command"),
        (("runn",), "no such command 'runn'. Did you mean 'run', 'runs'? see python -m jobs --help"),
        (("--bogus",), "no such option: --bogus"),
        (("export",), "python -m jobs export: missing option '--model'"),
        (("run", "--corpus"), "option '--corpus' requires an argument"),
        (
            ("run", "--corpus", "a", "b"),
            "unexpected argument: b; an option takes one value, repeat the option for several",
        ),
        (("run", "--corpsu", "a"), "no such option: --corpsu (Possible options: --corpus)"),
        (("run", "--corpus", "a", "--engine", "quantum"), "'quantum' is not one of 'inline', 'spark'"),
        (
            ("embed", "--run", "r", "--neighbours", "a", "b"),
            "unexpected argument: b; an option takes one value, repeat",
        ),
        (("sample",), "python -m jobs sample: missing option '--model'"),
        (("sample", "--model", "m", "--top-k", "many"), "--top-k"),
        (("sample", "--model", "m", "--dtype", "float64"), "--dtype"),
        (("export", "--model", "m", "--format", "pdf"), "'pdf' is not one of 'gguf', 'zip', 'folder'"),
        (("check-metrics",), "missing argument 'FILE'"),
        (("check-metrics", "a", "b"), "unexpected argument: b; see python -m jobs check-metrics --help"),
    ],
)
def test_a_wrong_command_is_one_line_that_names_the_help(arguments, message, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("python -m jobs")
    assert message in output.err
    assert output.err.endswith("--help\n")
    assert "Value error" not in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "train: no run is named; give --config URI or --run-id NAME"),
        (("run",), "no text to train on; name it by --corpus"),
        (("embed",), "embed: name the run by either --config URI or --run RUN, and not by both"),
        (
            ("embed", "--run", "r", "--config", "c"),
            "embed: name the run by either --config URI or --run RUN, and not by both",
        ),
        (("train", "--config", "x.json"), "not a run's configuration"),
        (("run", "--corpus", "a.txt", "--set", "train.seed"), "write key=value"),
        (("run", "--corpus", "a.txt", "--set", "train.sed=1"), "train.sed: unknown key; did you mean train.seed?"),
        (("check-metrics", "nowhere.csv"), "no such file"),
        (("sample", "--model", "m", "--top-p", "0"), "--top-p: input should be greater than 0, got 0.0"),
        (("sample", "--model", "m", "--min-p", "2"), "--min-p: input should be less than or equal to 1, got 2.0"),
        (("sample", "--model", "m", "--stop", ""), "--stop holds an empty text"),
        (("sample", "--model", "m", "--temperature", "nan"), "--temperature: input should be a finite number"),
        (("sample", "--model", "m", "--temperature", "inf"), "--temperature: input should be a finite number"),
        (("sample", "--model", "m", "--repetition-penalty", "0"), "--repetition-penalty: input should be greater"),
        (("sample", "--model", "m", "--seed", "-1"), "--seed: input should be greater than or equal to 0, got -1"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert output.err.startswith("nightjar: ")
    assert message in output.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.txt: empty"), 2, "nightjar: a.txt: empty"),
        (DamagedError("shard: truncated"), 1, "nightjar: shard: truncated"),
        (NightjarError("no"), 1, "nightjar: no"),
        (PermissionError(13, "Permission denied", "/x"), 1, "nightjar: PermissionError: [Errno 13] Permission denied"),
        (KeyboardInterrupt(), 130, "nightjar: interrupted"),
    ],
)
def test_errors_end_with_their_exit_code_and_one_line(error, code, line, capsys):
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    assert run_app(app, [], "prog") == code
    output = capsys.readouterr().err
    assert output.startswith(line)
    assert output.count("\n") == 1


def test_a_defect_of_the_program_keeps_its_traceback():
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        run_app(app, [], "prog")


def test_an_interrupted_run_says_that_it_can_be_continued(tmp_path):
    (tmp_path / "text.txt").write_text("the man walks over old stone bridges\n\n" * 2000)
    command = [
        sys.executable,
        "-m",
        "jobs",
        "run",
        "--corpus",
        str(tmp_path / "text.txt"),
        "--lake",
        str(tmp_path / "l"),
    ]
    settings = ["--preset", "tiny", "--set", "train.epochs=10000", "--set", "train.max_seconds=200"]
    with subprocess.Popen(
        [*command, *settings], stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - takes no lock
    ) as process:  # fmt: skip
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "tokenize: started" in line:
                time.sleep(0.5)
                os.killpg(process.pid, signal.SIGINT)
    # Python itself ends by the signal, which a shell shows as 130, if it came while a class was made from text.
    assert process.returncode in (130, -signal.SIGINT), lines
    assert lines[-1] == "nightjar: interrupted; finished work is kept; run the same command again to continue\n"


def test_help_loads_nothing_heavy():
    code = f"import sys, jobs.cli.main as m; m.main(['--help']); print(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == []


def test_every_command_and_option_has_a_help_text():
    found = commands()
    assert set(found) == {
        *("run", "tokenize", "windows", "embed", "train", "generate", "score", "evaluate", "replay"),
        *("sample", "export", "check-metrics", "history", "facts", "runs", "report", "champion", "gc", "sweep"),
        "forget",
    }
    groups = [getattr(command, "commands", {}) for command in found.values()]
    for name, command in [*found.items(), *(each for group in groups for each in group.items())]:
        assert command.help, name
        assert all(param.help for param in command.params), name


@pytest.mark.parametrize("command", sorted(commands()))
def test_help_exits_with_0(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"python -m jobs {command}" in capsys.readouterr().out


def test_the_help_of_presets_names_them_all():
    [preset] = [param for param in commands()["run"].params if param.name == "preset"]
    assert all(name in preset.help for name in preset_names())


def test_sample_has_the_defaults_of_the_section_generate():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(sample).parameters.items()
        if name in GenerateConfig.model_fields
    }
    section = GenerateConfig()
    assert defaults.pop("stop") is None
    assert defaults == {name: getattr(section, name) for name in defaults}
    assert len(defaults) == 10


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        (">/dev/full", 1, "nightjar: OSError: [Errno 28] No space left on device\n"),
        (">&-", 0, ""),
        ("<&- >&-", 0, ""),
        (">/dev/full 2>/dev/full", 1, ""),
        ("2>&-", 0, ""),
    ],
)
def test_an_output_that_cannot_be_written_ends_without_a_traceback(tmp_path, redirection, code, message):
    (tmp_path / "m.csv").write_text("step,valid_loss\n1,3.5\n2,3.25\n")
    command = f"{sys.executable} -m jobs check-metrics {tmp_path}/m.csv {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, message)


def test_a_message_is_one_printable_line(capsys):
    assert main(["sample", "--model", "a\nb\x1b[31m\udcff"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert r"a\nb\x1b[31m\udcff: no model found" in message


def test_an_ascii_terminal_shows_names_escaped(tmp_path):
    (tmp_path / "夜.csv").write_text("step,valid_loss\n1,x\n")
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "check-metrics", f"{tmp_path}/夜.csv"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert r"\u591c.csv: line 2" in done.stdout
    assert "Traceback" not in done.stderr
