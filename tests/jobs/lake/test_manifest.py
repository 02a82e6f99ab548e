"""Datasets: shards, their manifest, and the checks of both."""

import json
import os
import tempfile
import time
from types import SimpleNamespace

import pytest

from jobs.errors import DamagedError, InputError
from jobs.lake import cache, store
from jobs.lake.cache import verified_file
from jobs.lake.manifest import FileEntry, Manifest, parse_manifest
from jobs.lake.uri import join


def make_dataset(folder):
    shard = store.write_shard(folder, "train/00000.bin", b"abcdefg", tokens=7)
    entries = (shard, store.write_file(folder, "notes é.txt", b"hello"))
    manifest = Manifest("windows", "f00", entries, {"size": 3})
    return manifest, store.publish_manifest(folder, manifest)


def test_a_manifest_is_published_once_and_read(lake_uri):
    folder = join(lake_uri, "datasets", "windows", "f00")
    assert store.read_manifest(folder) is None
    manifest, first = make_dataset(folder)
    assert first
    _, second = make_dataset(folder)
    assert not second
    assert store.read_manifest(folder) == manifest
    store.verify_sizes(folder, manifest)
    paths = [verified_file(folder, entry) for entry in manifest.files]
    assert [path.read_bytes() for path in paths] == [b"abcdefg", b"hello"]
    assert [store.read_file(folder, entry) for entry in manifest.files] == [b"abcdefg", b"hello"]


@pytest.mark.parametrize(("content", "reason"), [(b"abc", "has 3 bytes"), (b"abcdefX", "differs"), (None, "missing")])
def test_a_damaged_shard_is_refused(lake_uri, content, reason):
    folder = join(lake_uri, "d")
    manifest, _ = make_dataset(folder)
    shard = join(folder, manifest.files[0].name)
    if content is None:
        store.delete_folder(join(folder, "train"))
    else:
        store.write_bytes(shard, content)
    for read in (verified_file, store.read_file):
        with pytest.raises(DamagedError, match=reason) as caught:
            read(folder, manifest.files[0])
        assert f"delete {folder} " in str(caught.value)
    if content != b"abcdefX":
        with pytest.raises(DamagedError, match=reason):
            store.verify_sizes(folder, manifest)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", ".", ""])
def test_a_manifest_whose_names_lead_elsewhere_is_refused(name):
    data = Manifest("model", "f00", (FileEntry(name, 1, "0" * 64),)).to_json()
    with pytest.raises(DamagedError, match="not a manifest"):
        parse_manifest(data, "file:///d/_manifest.json")


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b'{"files": 1}', b'{"files": []}'])
def test_a_broken_manifest_is_refused(tmp_path, data):
    store.write_bytes(join(tmp_path.as_uri(), "_manifest.json"), data)
    with pytest.raises(DamagedError, match=r"_manifest\.json: not a manifest of format 1; delete "):
        store.read_manifest(tmp_path.as_uri())


def test_copies_of_s3_are_deleted_when_they_were_not_used_for_days(s3_uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    entries = [store.write_file(s3_uri, f"{name}.txt", name.encode()) for name in ("old", "used", "new")]
    old, used = (verified_file(s3_uri, entry) for entry in entries[:2])
    for path in (old, used):
        os.utime(path, (0, 0))
    assert verified_file(s3_uri, entries[1]) == used
    new = verified_file(s3_uri, entries[2])
    assert sorted(tmp_path.rglob("*")) == sorted([new.parent, used, new])
    assert verified_file(s3_uri, entries[0]).read_bytes() == b"old"


def test_copies_leave_a_part_of_the_disk_free(s3_uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    entries = [store.write_file(s3_uri, f"{name}.txt", name.encode() * 100) for name in "abc"]
    copies = [verified_file(s3_uri, entry) for entry in entries[:2]]
    for copy, age in zip(copies, (2000, 1000), strict=True):
        os.utime(copy, (time.time() - age,) * 2)
    (copies[0].parent / "rounds-x").mkdir()
    mapped = copies[0].open("rb")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(total=1000, free=250))
    monkeypatch.setenv("LOCAL_DIRS", str(tmp_path / "yarn" / "no" / "such"))
    third = verified_file(s3_uri, entries[2])  # 100 bytes, of which 50 lie within the last fifth
    assert sorted(copies[0].parent.iterdir()) == sorted([copies[1], third, copies[0].parent / "rounds-x"])
    assert mapped.read() == b"a" * 100


def test_what_another_worker_of_the_node_writes_or_is_about_to_open_stays(s3_uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    entries = [store.write_file(s3_uri, f"{name}.txt", name.encode() * 100) for name in "ab"]
    just_made = verified_file(s3_uri, entries[0])
    half_written = just_made.with_name(f"{entries[1].sha256}.0123abcd")
    half_written.write_bytes(b"b" * 50)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(total=1000, free=10))
    monkeypatch.setenv("LOCAL_DIRS", str(tmp_path / "no" / "such" / "folder"))
    second = verified_file(s3_uri, entries[1])
    assert sorted(just_made.parent.iterdir()) == sorted([just_made, half_written, second])


def test_copies_of_a_container_are_on_the_disks_of_yarn(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache.cache_folder().parent == tmp_path
    application = tmp_path / "yarn" / "usercache" / "hadoop" / "appcache" / "application_1"
    application.mkdir(parents=True)
    monkeypatch.setenv("LOCAL_DIRS", f"{application},/elsewhere")
    assert cache.cache_folder().parent == tmp_path / "yarn" / "usercache" / "hadoop"
    monkeypatch.setenv("LOCAL_DIRS", "/no/such/folder")
    assert cache.cache_folder().parent == tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_another_user_is_refused(s3_uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"nightjar-cache-{os.getuid()}"
    folder.mkdir()
    os.chown(folder, 1, -1)
    with pytest.raises(InputError, match="belongs to another user"):
        verified_file(s3_uri, store.write_file(s3_uri, "a.txt", b"a"))


@pytest.mark.parametrize(
    "change",
    [{"kind": 3}, {"fingerprint": "a\nb"}, {"counts": []}, {"inputs": None}, {"files": [{"name": "a", "size": "1"}]}],
)
def test_a_manifest_with_values_of_wrong_types_is_refused(change):
    values = json.loads(Manifest("model", "f00", (FileEntry("a", 1, "0" * 64),)).to_json())
    for entry in change.get("files", ()):
        entry["sha256"] = "0" * 64
    with pytest.raises(DamagedError, match="not a manifest"):
        parse_manifest(json.dumps(values | change).encode(), "file:///d/_manifest.json")


def test_a_file_that_the_manifest_does_not_list_is_damage():
    entry = FileEntry.of("tokenizer.json", b"{}")
    manifest = Manifest("tokens", "abc", (entry,))
    assert manifest.entry("tokenizer.json") is entry
    with pytest.raises(DamagedError, match=r"^manifest of tokens abc: does not list stats\.json; delete its folder"):
        manifest.entry("stats.json")
