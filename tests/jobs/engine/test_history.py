"""Spark's event log of a run is in the lake, and Spark's own history server opens it."""

import json
import re
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from jobs.cli.main import main
from jobs.config import SparkConfig
from jobs.engine import history
from jobs.engine.spark import SparkEngine
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import base_name, local_path
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake whose run `r` has the event log of an application."""
    lake = Lake((tmp_path_factory.mktemp("history") / "my lake").as_uri())
    engine = SparkEngine(SparkConfig(driver_memory="1g"), "local[2]", lake.run("r").spark_events)
    assert engine.map(abs, [-1, 2], "a stage of ours") == [1, 2]
    engine.stop()
    return lake


def test_the_log_is_in_the_runs_folder(lake):
    [file] = store.list_files(lake.run("r").spark_events)
    assert re.fullmatch(r"local-\d+\.(zstd|lz4)", base_name(file.uri))
    with pytest.raises(InputError, match="this run has no Spark event logs"):
        history.download(lake.run("none").spark_events, local_path(lake.uri))


@pytest.mark.long
def test_the_history_server_shows_the_stages(lake):
    command = [sys.executable, "-m", "jobs", "history", "r", "--lake", str(local_path(lake.uri)), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            address = re.match(r"(http://127\.0\.0\.1:\d+) shows the steps of r", line)[1]
            [application] = json.load(urlopen(f"{address}/api/v1/applications"))
            stages = json.load(urlopen(f"{address}/api/v1/applications/{application['id']}/stages"))
            assert [stage["description"] for stage in stages] == ["a stage of ours"]
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(PATIENCE_SECONDS) == 0, server.stderr.read()


def test_a_run_without_logs_and_a_port_in_use_are_one_line(lake, capsys):
    arguments = ["history", "none", "--lake", str(local_path(lake.uri))]
    assert main([*arguments, "--port", "0"]) == 2
    printed = capsys.readouterr().err
    assert "this run has no Spark event logs; choose a run in which a step on Spark has ended" in printed
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*arguments, "--port", str(port)]) == 2
    printed += capsys.readouterr().err
    assert f"port {port} cannot be used (Address already in use); choose another, or 0 for any free one" in printed
    assert printed.count("\n") == 2
