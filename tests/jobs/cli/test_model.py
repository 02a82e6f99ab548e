"""The commands `sample` and `export`; the prompt loop runs in a real pseudo-terminal."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from gguf import GGUFReader

from jobs.cli.main import main
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.model_io.folder import model_contents, read_contents, save_model
from jobs.model_io.gguf import to_gguf
from tests.jobs.model_io.test_folder import changed
from tests.support.models import untrained_model

pytestmark = pytest.mark.slow

WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def folder(model_and_tokenizer_untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("a möde l")
    save_model(path.as_uri(), *model_and_tokenizer_untrained)
    return path


def _take_terminal():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is ignored, and stays so, below a shell's background job
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The command, with a pseudo-terminal as its controlling terminal."""

    def __init__(self, *arguments):
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "jobs", "sample", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
            preexec_fn=_take_terminal,  # noqa: PLW1509 - two system calls, which take no lock
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def type(self, keys):
        os.write(self._master, keys)

    def wait_for(self, what, at_least=0, retyped=b""):
        """Read until `what` comes after `at_least` bytes; return the output before it and drop both.

        While nothing comes, type the keys `retyped` again.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while (at := self.seen.find(what, at_least)) < 0:
            left = max(0, deadline - time.monotonic())
            ready, _, _ = select.select([self._master], [], [], min(left, 1) if retyped else left)
            assert ready or (retyped and left), f"{what!r} did not come: {self.seen!r}"
            if ready:
                self.seen += os.read(self._master, 4096)
            else:
                self.type(retyped)
        before, self.seen = self.seen[:at], self.seen[at + len(what) :]
        return before

    def leave(self):
        """Type Ctrl-D until the command exits; return its exit code.

        A Ctrl-D before readline waits for keys has no effect.
        """
        for _ in range(WAIT_SECONDS):
            self.type(b"\x04")
            try:
                return self.process.wait(1)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"the command still runs: {self.seen!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path):
    """Return a prompt loop whose model never ends a text."""
    save_model(tmp_path.as_uri(), *untrained_model(is_endless=True))
    opened = Terminal("--model", tmp_path, "--max-new-tokens", 100_000, "--stop", "qzqzqz")
    yield opened
    opened.close()


def test_the_prompt_loop_edits_recalls_and_stops(terminal):
    terminal.wait_for(b"> ")
    terminal.type(b"night and day\r")
    terminal.wait_for(b"night and day\r\n", 0)
    terminal.wait_for(b"", 300)  # the text streams
    terminal.type(b"\x03")  # Ctrl-C
    terminal.wait_for(b"stopped")
    terminal.wait_for(b"> ")
    terminal.type(b"\x10\r")  # Ctrl-P: the line before
    terminal.wait_for(b"night and day")
    terminal.wait_for(b"", 300)
    terminal.type(b"\x03")
    terminal.wait_for(b"stopped")
    terminal.wait_for(b"> ")
    terminal.type(b"half a line")
    terminal.wait_for(b"half a line")
    terminal.type(b"\x03")
    terminal.wait_for(b"> ", retyped=b"\x03")  # a Ctrl-C before readline waits for keys has no effect
    assert terminal.leave() == 0


def test_the_speed_is_logged_at_the_end(folder):
    terminal = Terminal("--model", folder, "--max-new-tokens", 3)
    terminal.wait_for(b"> ")
    terminal.type(b"night\r")
    assert b"3 tokens, " in terminal.wait_for(b" tokens/s")
    terminal.wait_for(b"> ")
    terminal.close()


def say(capsysbinary, *arguments):
    code = main(["sample", "--max-new-tokens", "40", "--temperature", "2", *map(str, arguments)])
    return code, capsysbinary.readouterr()


def test_the_same_seed_gives_the_same_text(folder, capsysbinary):
    code, said = say(capsysbinary, "--model", folder, "--prompt", "Käfer", "--top-p", "0.9", "--min-p", "0.01")
    assert code == 0
    assert said.out.decode("utf-8").startswith("Käfer")
    assert (
        say(capsysbinary, "--model", folder, "--prompt", "Käfer", "--top-p", "0.9", "--min-p", "0.01")[1].out
        == said.out
    )
    assert say(capsysbinary, "--model", folder, "--prompt", "Käfer", "--seed", 1)[1].out != said.out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_prompt_from_a_pipe_is_shown_in_the_encoding_of_the_output(folder, encoding):
    command = [sys.executable, "-m", "jobs", "sample", "--model", str(folder), "--max-new-tokens", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    shown = {"utf-8": "Nächte \ufffd".encode(), "ascii": b"N?chte ?"}[encoding]
    done = subprocess.run(command, input=b"N\xc3\xa4chte \xff\n", env=environment, capture_output=True, check=True)
    assert done.stdout.startswith(shown)


def test_a_closed_output_ends_with_exit_code_141(folder):
    command = [sys.executable, "-m", "jobs", "sample", "--model", str(folder), "--max-new-tokens", "5000"]
    with subprocess.Popen([*command, "--prompt", "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"a"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_streamed_text_is_the_generated_text(folder, capsysbinary, monkeypatch):
    """No character is split on the way, and no part of a stop string is shown."""
    from jobs.generation import generate

    texts = []
    real = generate.generate

    def spy(*arguments):
        made = real(*arguments)
        texts.append(made[0].text)
        return made

    monkeypatch.setattr("jobs.generation.generate.generate", spy)
    for seed in range(5):
        out = say(capsysbinary, "--model", folder, "--prompt", "", "--seed", seed, "--stop", "e")[1].out
        assert out.decode("utf-8") == texts[-1] + "\n"
        assert "e" not in texts[-1]


def test_a_model_is_found_as_folder_zip_run_and_champion(folder, tmp_path, capsysbinary):
    home = Lake(tmp_path.as_uri())
    archive = tmp_path / "m.zip"
    assert main(["export", "--model", str(folder), "--format", "zip", "--output", str(archive)]) == 0
    run = ["export", "--model", str(archive), "--format", "folder", "--output", home.run("r").model]
    assert main(run) == 0
    assert main(["export", "--model", "r", "--lake", str(tmp_path), "--format", "zip", "--output", f"{archive}.2"]) == 0
    assert archive.read_bytes() == (tmp_path / "m.zip.2").read_bytes()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "champion.json").write_text('{"model": "abc", "run_id": "r"}')
    to_champion = tmp_path / "models" / "abc"
    assert main(["export", "--model", str(folder), "--format", "folder", "--output", str(to_champion)]) == 0
    said = {
        say(capsysbinary, "--model", name, "--lake", tmp_path, "--prompt", "x")[1].out
        for name in (folder, archive, home.run("r").uri, "r", "champion")
    }
    assert len(said) == 1


def test_gguf(folder, model_and_tokenizer_untrained, tmp_path):
    output = tmp_path / "my model.gguf"
    assert main(["export", "--model", str(folder), "--format", "gguf", "--output", str(output)]) == 0
    assert output.read_bytes() == to_gguf(*model_and_tokenizer_untrained, "my model")
    upper = tmp_path / "MY MODEL.GGUF"
    assert main(["export", "--model", str(folder), "--format", "gguf", "--output", str(upper)]) == 0
    assert GGUFReader(upper).fields["general.name"].contents() == "MY MODEL"


@pytest.mark.parametrize("command", ["sample", "export"])
def test_a_damaged_model_is_one_line_and_code_1(command, model_and_tokenizer_untrained, tmp_path, capsys):
    contents = changed(model_contents(*model_and_tokenizer_untrained, {}), "model.safetensors", lambda data: data[:-4])
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    more = ["--format", "gguf", "--output", str(tmp_path / "out.gguf")] if command == "export" else ["--prompt", "x"]
    assert main([command, "--model", str(tmp_path), *more]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert [line for line in said.err.splitlines() if "not a safetensors file" in line] == [said.err.strip()]
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("pointer", ["{}", "[]", '"abc"', "{"])
def test_a_damaged_champion_is_one_line_and_code_1(tmp_path, pointer, capsys):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "champion.json").write_text(pointer)
    assert main(["sample", "--model", "champion", "--lake", str(tmp_path), "--prompt", "x"]) == 1
    assert capsys.readouterr().err.count("champion.json: ") == 1


@pytest.mark.parametrize("kind", ["model", "windows"])
def test_a_folder_with_other_files_is_not_overwritten(folder, tmp_path, kind, capsys, caplog):
    thesis, export = tmp_path / "thesis.txt", ["export", "--model", str(folder), "--format", "folder", "--output"]
    entry = store.write_file(tmp_path.as_uri(), thesis.name, b"years of work")
    if kind == "windows":
        store.publish_manifest(tmp_path.as_uri(), Manifest(kind, "f00", (entry,)))
    before = sorted(tmp_path.iterdir())
    for output in (tmp_path, thesis):
        assert main([*export, str(output)]) == 2
        assert "name a new or empty folder" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert thesis.read_bytes() == b"years of work"
    for _ in range(2):  # an earlier model is replaced
        assert main([*export, str(tmp_path / "new")]) == 0
        assert "next: pip install transformers, then in Python: " in caplog.text
        code = caplog.text.partition("then in Python: ")[2].splitlines()[0]
        assert compile(code, "shown", "exec").co_names[:3] == ("transformers", "pipeline", "print")
        assert f"pipeline('text-generation', {str(tmp_path / 'new')!r})('The man', max_new_tokens=40)" in code
    assert main(["export", "--model", str(folder), "--format", "zip", "--output", str(tmp_path)]) == 2
    assert "name the file" in capsys.readouterr().err


def test_the_zip_of_a_folder_holds_its_contents(folder, tmp_path):
    main(["export", "--model", str(folder), "--format", "zip", "--output", str(tmp_path / "m.zip")])
    assert read_contents((tmp_path / "m.zip").as_uri()) == read_contents(folder.as_uri())


def test_a_whole_file_is_one_prompt(folder, tmp_path, capsys):
    (tmp_path / "seed.txt").write_bytes(b"The man\r\n\r\nstarts\r\n")
    command = ["sample", "--model", str(folder), "--max-new-tokens", "3", "--prompt-file", str(tmp_path / "seed.txt")]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("The man\n\nstarts")
    assert main([*command, "--prompt", "x"]) == 2
    assert "--prompt and --prompt-file are both given; give one of them" in capsys.readouterr().err
    assert main(["sample", "--model", str(folder), "--prompt-file", str(tmp_path / "none.txt")]) == 2
    assert "--prompt-file: " in capsys.readouterr().err.splitlines()[-1]


def test_the_least_number_of_words_is_at_most_the_largest(folder, capsys):
    assert main(["sample", "--model", str(folder), "--prompt", "x", "--min-new-words", "30"]) == 2
    assert "--min-new-words (30) must be at most --max-new-words (20)" in capsys.readouterr().err


def test_an_output_that_is_no_file_is_refused(folder, tmp_path, capsys):
    """Writing would replace a device, such as /dev/null, by a file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    export = ["export", "--model", str(folder), "--format", "zip", "--output"]
    for name, reason in (
        ("pipe", "is a pipe or a device"),
        ("file/x", "this folder cannot be written to"),
        ("x" * 300, "cannot be written to (File name too long)"),
    ):
        assert main([*export, str(tmp_path / name)]) == 2
        assert reason in capsys.readouterr().err
    assert main([*export, "s3://bucket"]) == 2
    assert "s3://bucket: is a bucket" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


def test_an_export_that_fails_leaves_nothing(folder, tmp_path):
    command = f"ulimit -f 1; exec {sys.executable} -m jobs export --model '{folder}' --format folder --output new/m"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the disk is full" in done.stderr
    assert not (tmp_path / "new/m").exists()


def test_options_without_effect_are_said(folder, caplog, capsys):
    """Those that a person gave; the defaults of others are nobody's mistake."""
    command = ["sample", "--model", str(folder), "--prompt", "x"]
    inert = ["--temperature", "0", "--top-k", "5", "--seed", "3", "--max-new-words", "4", "--max-new-tokens", "2"]
    assert main([*command, *inert]) == 0
    lines = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
    assert sorted(lines) == [
        "--max-new-words=4 has no effect: it acts only with --max-new-tokens unset",
        "--seed=3 has no effect: it acts only with --temperature of 1e-6 or more",
        "--top-k=5 has no effect: it acts only with --temperature of 1e-6 or more",
    ]
    caplog.clear()
    assert main([*command, "--temperature", "0", "--max-new-tokens", "2"]) == 0
    assert main([*command, "--temperature", "1", "--top-k", "5", "--seed", "3", "--max-new-words", "4"]) == 0
    assert "has no effect" not in caplog.text
