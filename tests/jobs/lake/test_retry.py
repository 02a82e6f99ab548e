"""A lake that fails for a while: a real S3 server that goes and comes back, and a real disk that is too small."""

import errno
import os
import subprocess
import threading
import time
import uuid

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from moto.server import ThreadedMotoServer

from jobs.engine.inline import InlineEngine
from jobs.errors import LakeError
from jobs.lake import retry, store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, local_path
from jobs.steps import train
from tests.support.handmade import make_datasets, make_run, metrics, train_tokenizer


class Server:
    """A moto server that can be away for a while; what it holds stays."""

    def __init__(self):
        self.server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

        self.ended = threading.Event()
        self.waiting = threading.Thread()

    def be_away(self, seconds, until=lambda: True):
        """Stop, and come back when `seconds` have passed and `until` holds."""

        def come_back():
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline or not until():
                if self.ended.wait(0.05):
                    return
            self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
            self.server.start()

        self.server.stop()
        self.waiting = threading.Thread(target=come_back)
        self.waiting.start()

    def end(self):
        self.ended.set()
        if self.waiting.is_alive():
            self.waiting.join()
        self.server.stop()


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    for cached in (store.s3_client, store._s3_filesystem):
        cached.cache_clear()
    yield server
    server.end()
    for cached in (store.s3_client, store._s3_filesystem):
        cached.cache_clear()


@pytest.fixture
def place(server):
    bucket = f"lake-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/x"


def test_a_lake_that_is_away_for_a_while_costs_only_time(server, place, caplog):
    uri = join(place, "a.json")
    server.be_away(0, until=lambda: "trying again in" in caplog.text)  # so longer than boto3 itself tries
    store.write_json(uri, [1])
    for work in (
        lambda: store.read_json(uri) == [1],
        lambda: store.exists(uri),
        lambda: store.publish(join(place, "b"), b"b"),
        lambda: len(store.list_files(place)) == 2,
        lambda: store.delete_folder(place) is None,
    ):
        server.be_away(1)
        assert work()
    assert store.list_files(place) == []


def test_patience_has_a_limit_and_ends_in_one_line(server, place, monkeypatch):
    monkeypatch.setattr(retry, "LIMIT_SECONDS", 0.5)
    server.be_away(100)
    started = time.monotonic()
    with pytest.raises(LakeError, match=r"s3://.*/x/a: the lake has not answered for 0.5 s \(.*\); the same command"):
        store.write_bytes(join(place, "a"), b"")
    assert time.monotonic() - started < 60


def answer(status, code):
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (answer(503, "ServiceUnavailable"), True),
        (answer(400, "SlowDown"), True),
        (answer(404, "NoSuchKey"), False),
        (answer(403, "AccessDenied"), False),
        (EndpointConnectionError(endpoint_url="x"), True),
        (NoCredentialsError(), False),
        (ConnectionResetError(), True),
        (OSError(errno.ESTALE, "stale"), True),
        (OSError("When reading: AWS Error NETWORK_CONNECTION during GetObject operation"), True),
        (OSError("When reading: AWS Error UNKNOWN (HTTP status 502) during HeadObject operation"), True),
        (OSError("When reading: AWS Error ACCESS_DENIED (HTTP status 403) during HeadObject operation"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (FileNotFoundError(errno.ENOENT, "no"), False),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, bool) else type(value).__name__,
)
def test_what_may_pass_is_tried_again(error, transient):
    assert retry.is_transient(error) == transient


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own; the function that it gives sets its size."""

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
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk, tmp_path):
    home = tmp_path.as_uri()
    with pytest.raises(LakeError, match="/a: the disk is full; what was begun is removed"):
        store.write_bytes(join(home, "a"), bytes(2**21))
    with pytest.raises(LakeError, match="the disk is full"), store.create_shard(home, "b", ".bin") as shard:
        shard.write(bytes(2**21))
    assert list(tmp_path.iterdir()) == []
    small_disk("4m")
    store.write_bytes(join(home, "a"), bytes(2**21))


def test_training_on_a_full_disk_stops_and_goes_on_when_there_is_room(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    small_disk("3m")
    place = Lake(tmp_path.as_uri())
    make_datasets(place, train_tokenizer())
    run, config = make_run(place, train__epochs=2, train__checkpoint_every=5, train__keep_checkpoints=99)
    with pytest.raises(LakeError, match=r"checkpoints/.*: the disk is full"):
        train.run(run, config, InlineEngine(), lambda _: None)
    folders = list(local_path(run.checkpoints).iterdir())
    assert folders
    assert all((folder / "_manifest.json").exists() for folder in folders)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    small_disk("100m")
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert [row["step"] for row in metrics(run)] == list(range(1, stats["num_steps"] + 1))
