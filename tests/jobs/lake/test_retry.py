"""A lake that fails for a while: a real S3 server that goes and comes back, and a real disk that is too small."""

import errno
import gc
import os
import subprocess
import threading
import time
import uuid

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
)
from moto.server import ThreadedMotoServer

from jobs.engine.inline import InlineEngine
from jobs.errors import LakeError
from jobs.lake import store
from jobs.lake._s3 import os_errors
from jobs.lake.layout import Lake
from jobs.lake.retry import is_transient
from jobs.lake.store import Store
from jobs.lake.uri import join, local_path
from jobs.steps import train
from tests.support.handmade import make_datasets, make_run, metrics, train_tokenizer

pytestmark = pytest.mark.slow


class Server:
    """A moto server that can stop for a while; its objects are kept."""

    def __init__(self):
        self.server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]
        once = Config(retries={"total_max_attempts": 1})  # boto3's own retries take up to ten seconds
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", config=once)
        self.ended = threading.Event()
        self.waiting = threading.Thread()

    def stop_for(self, seconds, until=lambda: True):
        """Stop, and start again when `seconds` have passed and `until` holds."""

        def start_again():
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline or not until():
                if self.ended.wait(0.05):
                    return
            self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
            self.server.start()

        self.server.stop()
        self.waiting = threading.Thread(target=start_again)
        self.waiting.start()

    def end(self):
        self.ended.set()
        if self.waiting.is_alive():
            self.waiting.join()
        self.server.stop()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.end()


@pytest.fixture
def folder(server):
    bucket = f"lake-{uuid.uuid4().hex[:8]}"
    server.client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/x"


def test_a_lake_that_fails_for_a_while_costs_only_time(server, folder, caplog):
    patient, uri = Store(lambda: server.client), join(folder, "a.json")
    server.stop_for(0, until=lambda: "trying again in" in caplog.text)
    patient.write_json(uri, [1])
    with patient.open_input(uri) as file:
        for operation in (
            lambda: file.read(2) == b"[\n",
            lambda: patient.read_json(uri) == [1],
            lambda: patient.exists(uri),
            lambda: patient.publish(join(folder, "b"), b"b"),
            lambda: len(patient.list_files(folder)) == 2,
            lambda: patient.copy(uri, join(folder, "c")) is None,
            lambda: patient.delete_folder(folder) is None,
        ):
            server.stop_for(1)
            assert operation()
    assert patient.list_files(folder) == []


def test_retries_end_at_the_limit_with_one_line(server, folder):
    server.stop_for(100)
    started = time.monotonic()
    message = r"s3://.*/x/a: the lake was unreachable for 0.5 s \(EndpointConnectionError: .*\); run the same command"
    with pytest.raises(LakeError, match=message):
        Store(lambda: server.client, retry_seconds=0.5).write_bytes(join(folder, "a"), b"")
    assert time.monotonic() - started < 60


def test_without_a_limit_an_operation_is_tried_once(server, folder, caplog):
    server.stop_for(100)
    with pytest.raises(OSError, match="EndpointConnectionError"):
        Store(lambda: server.client, retry_seconds=0).read_bytes(join(folder, "a"))
    assert "trying again" not in caplog.text


def response(status, code):
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (response(503, "ServiceUnavailable"), True),
        (response(400, "SlowDown"), True),
        (response(409, "ConditionalRequestConflict"), True),
        (response(404, "NoSuchKey"), False),
        (response(403, "AccessDenied"), False),
        (response(412, "PreconditionFailed"), False),
        (response(400, "InvalidArgument"), False),
        (EndpointConnectionError(endpoint_url="x"), True),
        (ReadTimeoutError(endpoint_url="x"), True),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), True),
        (NoCredentialsError(), False),
        (ConnectionResetError(), True),
        (OSError(errno.ESTALE, "stale"), True),
        (PermissionError(errno.EACCES, "no"), False),
        (FileNotFoundError(errno.ENOENT, "no"), False),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, bool) else type(value).__name__,
)
def test_errors_that_may_pass_are_retried(error, transient):
    with pytest.raises(OSError) as caught, os_errors("s3://bucket/key"):  # noqa: PT011 - its kind is the question
        raise error
    assert is_transient(caught.value) == transient


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system at `tmp_path`; return the function that sets its size."""

    def resize(size, *options):
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", tmp_path], check=True
        )

    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    try:
        resize("1m")
    except subprocess.CalledProcessError:
        pytest.skip("this machine allows no mounts")
    yield lambda size: resize(size, "remount")
    gc.collect()  # mapped files keep the disk busy
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk, tmp_path):
    lake_uri = tmp_path.as_uri()
    with pytest.raises(LakeError, match="/a: the disk is full; the incomplete file was removed"):
        store.write_bytes(join(lake_uri, "a"), bytes(2**21))
    with pytest.raises(LakeError, match=r"/b-.*: the disk is full"):
        store.write_shard(lake_uri, "b.bin", bytes(2**21))
    assert list(tmp_path.iterdir()) == []
    small_disk("4m")
    store.write_bytes(join(lake_uri, "a"), bytes(2**21))


def test_training_on_a_full_disk_stops_and_resumes_when_there_is_room(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    small_disk("3m")
    lake = Lake(tmp_path.as_uri())
    make_datasets(lake, train_tokenizer())
    run, config = make_run(lake, train__epochs=2, train__checkpoint_every=5, train__keep_checkpoints=99)
    with pytest.raises(LakeError, match=r"checkpoints/.*: the disk is full"):
        train.run(run, config, InlineEngine(), lambda _: None)
    folders = list(local_path(run.checkpoints).iterdir())
    assert folders
    assert all((folder / "_manifest.json").exists() for folder in folders)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    small_disk("100m")
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert [row["step"] for row in metrics(run)] == list(range(1, stats["num_steps"] + 1))
