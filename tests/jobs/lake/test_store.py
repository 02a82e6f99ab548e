"""Operations on files, on a local disk and on a real moto server."""

import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber

from jobs.errors import DamagedError, InputError, LakeError
from jobs.lake import store
from jobs.lake._local import atomic_temporary_file
from jobs.lake.layout import MANIFEST
from jobs.lake.store import Store
from jobs.lake.uri import join, local_path, relative_name, to_uri

ODD_NAMES = ["a b", "a#b", "a?b", "a%41", "a+b", "é ü", "a:b", "*.txt", "[x]", "~x"]
MIB = 1 << 20


def test_the_store_loads_neither_arrow_nor_boto3():
    heavy = "{'boto3', 'botocore', 'numpy', 'pyarrow', 'torch'}"
    code = f"import sys, jobs.lake.store, jobs.lake.champion, jobs.sources.listing; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_objects(lake_uri):
    uri = join(lake_uri, "a b", "c+d é.json")
    assert not store.exists(uri)
    with pytest.raises(FileNotFoundError):
        store.read_bytes(uri)
    with pytest.raises(FileNotFoundError):
        store.open_input(uri)
    store.write_json(uri, {"x": [1]})
    store.write_json(uri, {"x": [1, 2]})
    assert store.exists(uri)
    assert not store.exists(join(lake_uri, "a b"))
    assert not store.exists(lake_uri)
    assert store.read_json(uri) == {"x": [1, 2]}
    assert [info.uri for info in store.list_files(lake_uri)] == [uri]
    assert store.list_folders(lake_uri) == ["a b"]
    store.delete_folder(join(lake_uri, "a b"))
    store.delete_folder(join(lake_uri, "a b"))
    store.delete_file(uri)
    assert store.list_files(lake_uri) == store.list_folders(lake_uri) == []


def test_any_part_of_a_file_is_read(lake_uri):
    uri, data = join(lake_uri, "a.bin"), os.urandom(200_000)
    store.write_bytes(uri, data)
    with store.open_input(uri, buffer_bytes=1000) as file:
        assert file.read(10) == data[:10]
        assert file.seek(-5, os.SEEK_END) == 199_995
        assert file.read() == data[-5:]
        file.seek(70_000)
        file.seek(7, os.SEEK_CUR)
        assert file.read(100_001) == data[70_007:170_008]
        assert file.seek(300_000) == 300_000
        assert file.read(10) == b""


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_may_have_any_character(lake_uri, name):
    uri = join(lake_uri, name, name)
    assert store.publish(uri, name.encode())
    assert store.read_bytes(uri) == name.encode()
    assert [info.uri for info in store.list_files(lake_uri)] == [uri]
    assert store.list_folders(lake_uri) == [name]
    store.copy(uri, join(lake_uri, "copy"))
    store.delete_file(uri)
    assert [info.uri for info in store.list_files(lake_uri)] == [join(lake_uri, "copy")]


def test_a_key_may_have_empty_names(s3_uri):
    uris = [f"{s3_uri}/a//b", f"{s3_uri}//c", f"{s3_uri}/d/./e", f"{s3_uri}/f/../g"]
    for uri in uris:
        store.write_bytes(uri, uri.encode())
    assert [info.uri for info in store.list_files(s3_uri)] == sorted(uris)
    assert all(store.read_bytes(uri) == uri.encode() for uri in uris)


def test_the_empty_objects_that_stand_for_folders_are_no_files(s3_uri):
    store.write_bytes(f"{s3_uri}/folder/", b"")
    store.write_bytes(f"{s3_uri}/folder/a", b"a")
    assert [info.uri for info in store.list_files(s3_uri)] == [f"{s3_uri}/folder/a"]
    store.delete_folder(f"{s3_uri}/folder")
    assert not store.list_folders(s3_uri)


def test_a_local_name_need_not_be_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.txt")
    path.parent.mkdir()
    path.write_bytes(b"text")
    [found] = store.list_files(tmp_path.as_uri())
    assert local_path(found.uri) == path
    assert store.read_bytes(found.uri) == b"text"
    [folder] = store.list_folders(tmp_path.as_uri())
    store.write_bytes(join(tmp_path.as_uri(), folder, "b"), b"b")
    assert (path.parent / "b").read_bytes() == b"b"


def test_there_is_no_file_behind_a_link_to_itself(tmp_path):
    (tmp_path / "lake").symlink_to("lake")
    for name in ("lake", "lake/inner/file"):
        uri = join(tmp_path.as_uri(), name)
        assert not store.exists(uri)
        with pytest.raises(FileNotFoundError):
            store.read_bytes(uri)


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/text").touch()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/nowhere").symlink_to("missing")
    found = [local_path(info.uri).relative_to(tmp_path).as_posix() for info in store.list_files(tmp_path.as_uri())]
    assert found == ["a/text"]


def test_a_folder_that_many_links_reach_is_listed_once(tmp_path):
    """Links between three folders make thousands of paths to the same files."""
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").touch()
        for other in "abc":
            (tmp_path / name / f"to-{other}").symlink_to(f"../{other}")
    (tmp_path / "0-first").symlink_to("c")
    others = []
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "itself").symlink_to("itself")
    os.mkfifo(tmp_path / "pipe")
    found = [local_path(info.uri) for info in store.list_files(tmp_path.as_uri(), others=others)]
    assert found == [tmp_path / name / "text" for name in "abc"]
    assert sorted(local_path(uri).name for uri in others) == ["itself", "nowhere", "pipe"]


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for operation in (store.read_bytes, store.open_input):
        with pytest.raises(OSError, match="Is a pipe or a device"):
            operation((tmp_path / "pipe").as_uri())


def test_a_folder_does_not_list_its_namesakes(lake_uri):
    store.write_bytes(join(lake_uri, "train/1"), b"")
    store.write_bytes(join(lake_uri, "train2/1"), b"")
    assert [info.uri for info in store.list_files(join(lake_uri, "train"))] == [join(lake_uri, "train/1")]
    assert store.list_files(join(lake_uri, "tra")) == []
    store.delete_folder(join(lake_uri, "train"))
    assert store.list_folders(lake_uri) == ["train2"]


def test_publishing_happens_once(lake_uri):
    uri = join(lake_uri, "config.json")
    assert store.publish(uri, b"mine")
    assert not store.publish(uri, b"theirs")
    assert store.read_bytes(uri) == b"mine"


def test_one_of_many_publishers_succeeds(lake_uri):
    uri, written = join(lake_uri, "config.json"), []
    threads = [
        threading.Thread(target=lambda n=n: store.publish(uri, b"%d" % n) and written.append(n)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % n for n in written] == [store.read_bytes(uri)]


def test_a_replacement_needs_the_version_that_was_read(lake_uri):
    uri = join(lake_uri, "champion.json")
    store.write_bytes(uri, b"1")
    data, version = store.read_version(uri)
    assert data == b"1"
    assert store.replace(uri, b"2", version)
    assert not store.replace(uri, b"3", version)
    assert store.read_bytes(uri) == b"2"
    store.delete_file(uri)
    with pytest.raises(FileNotFoundError):
        store.replace(uri, b"4", version)


def count_up(uri, times):
    for _ in range(times):
        while True:
            data, version = store.read_version(uri)
            if store.replace(uri, b"%d" % (int(data) + 1), version):
                break


def test_programs_take_turns_at_a_file_and_leave_no_lock(tmp_path):
    uri = (tmp_path / "count").as_uri()
    store.write_bytes(uri, b"0")
    fork = multiprocessing.get_context("forkserver")
    programs = [fork.Process(target=count_up, args=(uri, 50)) for _ in range(4)]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    assert [program.exitcode for program in programs] == [0] * 4
    assert store.read_bytes(uri) == b"200"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_large_objects_are_written_and_copied_in_parts(s3_uri, s3_server, tmp_path):
    client, data = boto3.client("s3", endpoint_url=s3_server), os.urandom(11 * MIB)
    small_parts = Store(lambda: client, part_bytes=5 * MIB)
    path = tmp_path / "large"
    path.write_bytes(data)
    uris = [join(s3_uri, name) for name in ("written", "uploaded", "copied")]
    small_parts.write_bytes(uris[0], data)
    small_parts.copy(path.as_uri(), uris[1])
    small_parts.copy(uris[0], uris[2])
    for uri in uris:
        assert small_parts.read_bytes(uri) == data
        assert small_parts.read_version(uri)[1].endswith('-3"')  # the number of parts


def test_a_file_is_copied_between_storages(lake_uri, tmp_path):
    source, there, back = (tmp_path / "a b").as_uri(), join(lake_uri, "x/y"), (tmp_path / "back").as_uri()
    store.write_bytes(source, b"content")
    store.copy(source, there)
    store.copy(there, join(lake_uri, "z"))
    store.copy(join(lake_uri, "z"), back)
    assert store.read_bytes(back) == b"content"
    with pytest.raises(FileNotFoundError):
        store.copy(join(lake_uri, "none"), back)


def test_a_conflict_is_tried_again_and_only_a_failed_condition_means_that_there_is_a_file():
    client = boto3.client("s3")
    with Stubber(client) as stub:
        stub.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
        stub.add_response("put_object", {})
        stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
        stub.add_client_error("put_object", "AccessDenied", http_status_code=403)
        conditional = Store(lambda: client)
        assert conditional.publish("s3://bucket/key", b"")
        assert not conditional.publish("s3://bucket/key", b"")
        with pytest.raises(PermissionError, match="AccessDenied"):
            conditional.publish("s3://bucket/key", b"")
        stub.assert_no_pending_responses()


class LossyClient:
    """A client of S3 that loses the response of its first write."""

    def __init__(self, client):
        self.client = client
        self.lost = False

    def put_object(self, **arguments):
        response = self.client.put_object(**arguments)
        if self.lost:
            return response
        self.lost = True
        raise ReadTimeoutError(endpoint_url="s3")

    def __getattr__(self, name):
        return getattr(self.client, name)


def test_a_replacement_whose_response_was_lost_succeeded(s3_uri, s3_server):
    client, uri = LossyClient(boto3.client("s3", endpoint_url=s3_server)), join(s3_uri, "champion.json")
    store.write_bytes(uri, b"1")
    _, version = store.read_version(uri)
    assert Store(lambda: client).replace(uri, b"2", version)
    assert client.lost
    assert not Store(lambda: client).replace(uri, b"3", version)
    assert store.read_bytes(uri) == b"2"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events, fsync = [], os.fsync

    def logged_fsync(descriptor):
        events.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tmp_path)}")
        fsync(descriptor)

    def logged_replace(source, target):
        events.append(f"rename to {target.relative_to(tmp_path)}")
        source.replace(target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    with atomic_temporary_file(tmp_path / "new" / "a", logged_replace) as file:
        file.write(b"1")
    temporary = events.pop(1)
    assert temporary.startswith("fsync new/.a.")
    assert events == ["fsync .", "rename to new/a", "fsync new"]


def fail_while_writing(path):
    with atomic_temporary_file(path) as file:
        file.write(b"incomplete")
        raise KeyError


def test_a_failed_write_leaves_nothing(tmp_path):
    uri = to_uri(str(tmp_path / "x"))
    with pytest.raises(TypeError):
        store.write_bytes(uri, "text")
    with pytest.raises(KeyError):
        fail_while_writing(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    store.write_bytes(uri, b"1")
    store.publish(uri, b"2")
    store.copy(uri, join(tmp_path.as_uri(), "y"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


@contextmanager
def full_disk():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # a longer file fails with EFBIG
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_neither_file_nor_folder(tmp_path):
    with full_disk(), pytest.raises(LakeError, match="the disk is full"):
        store.write_bytes(to_uri(str(tmp_path / "new/folder/x")), bytes(1000))
    with full_disk(), pytest.raises(LakeError, match="the disk is full"):
        store.write_folder(to_uri(str(tmp_path / "new/folder")), {"a": b"1", "b": bytes(1000), MANIFEST: b"{}"})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_in_place_of_an_earlier_one(lake_uri):
    for contents in ({"a": b"1", "b": b"2", MANIFEST: b"{}"}, {MANIFEST: b"[]", "b": b"3", "c": b"4"}):
        store.write_folder(join(lake_uri, "x y"), contents)
        found = {
            relative_name(info.uri, join(lake_uri, "x y")): store.read_bytes(info.uri)
            for info in store.list_files(lake_uri)
        }
        assert found == contents


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    uri, before = tmp_path.as_uri(), {"a": b"1", "b": b"2", MANIFEST: b"{}"}
    store.write_folder(uri, before)
    with full_disk(), pytest.raises(LakeError, match="the disk is full"):
        store.write_folder(uri, {"a": b"3", "b": bytes(1000), MANIFEST: b"[]"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["x" * 300, "file/inner"])
def test_what_cannot_be_a_file_is_none(tmp_path, name):
    (tmp_path / "file").touch()
    uri = join(tmp_path.as_uri(), name)
    assert not store.exists(uri)
    assert store.list_files(uri) == store.list_folders(uri) == []
    with pytest.raises(FileNotFoundError, match=r"File name too long|Not a directory"):
        store.read_bytes(uri)
    with pytest.raises(InputError, match="cannot be written to"):
        store.check_writable(uri)


@pytest.mark.parametrize("data", [b"{", b"[" * 5000, b"9" * 5000])
def test_broken_json_is_named(lake_uri, data):
    uri = join(lake_uri, "x.json")
    store.write_bytes(uri, data)
    with pytest.raises(DamagedError, match=r"x\.json: not valid JSON"):
        store.read_json(uri)


def test_a_lake_that_cannot_be_written_to(tmp_path, s3_server):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file/lake: the lake cannot be written to"):
        store.check_writable(to_uri(str(tmp_path / "file" / "lake")))
    store.check_writable(to_uri(str(tmp_path / "new/lake")))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # a check leaves nothing
    with pytest.raises(InputError, match=r"the lake cannot be written to .*NoSuchBucket"):
        store.check_writable("s3://no-such-bucket-here/lake")


def test_a_bucket_that_is_not_there(s3_server):
    uri = f"s3://no-such-bucket-{uuid.uuid4().hex[:8]}/x"
    for operation in (store.read_bytes, store.list_files, store.list_folders, store.delete_folder):
        with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
            operation(uri)
