"""Datasets: shards, their manifest, and the checks of both."""

import json
import os
import tempfile

import pytest

from jobs.errors import DamagedError, InputError
from jobs.lake import store
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
    data = Manifest("model", "f00", (FileEntry(name, 1, "00"),)).to_json()
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
    values = json.loads(Manifest("model", "f00", (FileEntry("a", 1, "00"),)).to_json())
    for entry in change.get("files", ()):
        entry["sha256"] = "00"
    with pytest.raises(DamagedError, match="not a manifest"):
        parse_manifest(json.dumps(values | change).encode(), "file:///d/_manifest.json")
