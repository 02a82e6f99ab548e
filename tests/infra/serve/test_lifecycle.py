"""The service starts, follows the champion, and stops; what is wrong at its start is one line."""

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import httpx
import openai
import pytest

from infra.cli.main import main
from jobs.lake import store
from jobs.lake.champion import format_champion
from jobs.lake.layout import Lake
from jobs.model_io.folder import save_model
from tests.infra.serve.conftest import client_of
from tests.support.models import untrained_model
from tests.support.serving import serving
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.slow


RELOADS = 'nightjar_reloads_total{result="success"}'


def promote(lake, name, seed):
    """Make a model the champion of a lake."""
    save_model(f"{lake.models}/{name}", *untrained_model(seed, is_endless=True))
    store.write_bytes(lake.pipeline().champion, format_champion(name, f"run-{name}", {}))


@pytest.mark.long
def test_another_champion_is_served_while_requests_finish_on_the_earlier_one(tmp_path):
    lake = Lake((tmp_path / "lake").as_uri())
    promote(lake, "first", 1)
    asked = {"model": "champion", "prompt": "the", "temperature": 0}
    arguments = ("--model", "champion", "--lake", str(tmp_path / "lake"), "--reload-seconds", "0.2")
    with serving(tmp_path, *arguments, "--max-tokens", "1500") as running, client_of(running) as client:
        expected = client.completions.create(**asked, max_tokens=1500)
        assert [model.id for model in client.models.list()] == ["champion", "run-first"]
        stream = client.completions.create(**asked, max_tokens=1500, stream=True)
        begun = next(stream)
        promote(lake, "second", 2)
        running.wait_for(RELOADS, 1)
        after = client.completions.create(**{**asked, "model": "run-second"}, max_tokens=20)
        rest = list(stream)
        assert begun.choices[0].text + "".join(chunk.choices[0].text for chunk in rest) == expected.choices[0].text
        assert {chunk.system_fingerprint for chunk in rest} == {expected.system_fingerprint}
        assert after.system_fingerprint != expected.system_fingerprint
        with pytest.raises(openai.NotFoundError):
            client.completions.create(**{**asked, "model": "run-first"})
        cannot_be_loaded = format_champion("missing", "run-3", {})
        store.write_bytes(lake.pipeline().champion, cannot_be_loaded)
        until(lambda: "so the current model stays in use" in running.log.read_text())
        assert client.completions.create(**asked).system_fingerprint == after.system_fingerprint
        time.sleep(1)
        assert running.log.read_text().count("so the current model stays in use") == 1
        promote(lake, "fourth", 4)
        running.wait_for(RELOADS, 2)
        assert client.completions.create(**{**asked, "model": "run-fourth"}).choices
        store.write_bytes(lake.pipeline().champion, cannot_be_loaded)
        until(lambda: running.log.read_text().count("so the current model stays in use") == 2)  # it is a new failure


@pytest.mark.long
def test_sigterm_lets_requests_finish(endless, tmp_path):
    with serving(tmp_path, "--model", str(endless), "--max-tokens", "1500") as running, client_of(running) as client:
        stream = client.completions.create(model=str(endless), prompt="a", max_tokens=1500, stream=True)
        next(stream)
        running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:  # until no connection is taken any more
            try:
                httpx.get(f"{running.url}/models")
            except httpx.ConnectError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert list(stream)[-1].choices[0].finish_reason == "length"
        assert running.process.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in running.log.read_text()


def test_stopping_has_a_limit(endless, tmp_path):
    arguments = ("--model", str(endless), "--max-tokens", "1000000", "--drain-seconds", "1")
    with serving(tmp_path, *arguments) as running, client_of(running) as client:
        stream = client.completions.create(model=str(endless), prompt="a", max_tokens=1_000_000, stream=True)
        whole = []
        waiting = threading.Thread(
            target=lambda: whole.append(
                client.completions.create(model=str(endless), prompt="a", max_tokens=1_000_000).choices[0]
            )
        )
        waiting.start()
        next(stream)
        running.wait_for("nightjar_running", 2)
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert list(stream)[-1].choices[0].finish_reason == "length"
        waiting.join(PATIENCE_SECONDS)
        assert whole[0].finish_reason == "length"
        assert running.process.wait(PATIENCE_SECONDS) == 0
        assert time.monotonic() - started < 60  # a million tokens take longer


def test_ctrl_c_ends_with_its_exit_code(endless, tmp_path):
    with serving(tmp_path, "--model", str(endless)) as running:
        assert running.stop(signal.SIGINT) == 130
    assert running.log.read_text().splitlines()[-1] == "nightjar: interrupted"


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--host", "0.0.0.0"], {}, "--host 0.0.0.0: other machines can reach it, so give an API key"),
        (["--host", "::"], {}, "--host ::: other machines can reach it"),
        (["--host", "fe80::1%none"], {}, "--host fe80::1%none: "),
        ([], {"NIGHTJAR_API_KEY": "short"}, "NIGHTJAR_API_KEY: key 1 needs at least 16 printable ASCII characters"),
        (["--api-key-file", "{tmp}/none"], {}, "cannot be read (No such file or directory)"),
        (["--api-key-file", "{tmp}/empty"], {}, "has no key; write one in each line"),
        (["--api-key-file", "{tmp}/latin"], {}, "cannot be read (not UTF-8)"),
        (["--port", "{port}"], {}, "cannot listen on 127.0.0.1 port {port}: Address already in use"),
        (["--lake", "{tmp}"], {}, "nothing: no model found"),
        (["--max-batch", "0"], {}, "invalid value for '--max-batch': Input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(options, environment, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").touch()
    (tmp_path / "latin").write_bytes(b"\xff" * 20)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        words = [option.format(tmp=tmp_path, port=port) for option in options]
        words = words if "--port" in words else [*words, "--port", "0"]
        assert main(["serve", "--model", "nothing", *words]) == 2
    said = capsys.readouterr().err
    assert message.format(port=port) in said
    assert len(said.splitlines()) == 1


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from infra.cli.main import main
sys.exit(main({words!r}))
"""


def run_without(absent, *words):
    code = WITHOUT.format(absent=set(absent), words=words)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_other_commands_need_no_server_libraries(endless):
    absent = ("starlette", "uvicorn", "prometheus_client")
    done = run_without(absent, "sample", "--model", str(endless), "--prompt", "a")
    assert (done.returncode, done.stdout[:1]) == (0, "a")
    done = run_without(absent, "serve", "--model", str(endless))
    assert done.returncode == 2
    assert "prometheus_client, starlette, uvicorn not installed; install" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_machine_that_serves_needs_only_its_locks():
    """The model is looked for after all imports."""
    absent = ("airflow", "fastapi", "moto", "werkzeug", "pyspark", "httpx", "openai", "aiohttp", "flask")
    done = run_without(absent, "serve", "--model", "nothing", "--port", "0")
    assert "nothing: no model found" in done.stderr
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
