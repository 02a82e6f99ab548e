"""The lake on a local disk (in a folder with a space and a letter beyond ASCII) and on a real moto server."""

import os
import tempfile

import pytest

from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.uri import join, local_path, to_uri


@pytest.fixture(params=["file", "s3"])
def lake_uri(request, tmp_path, s3_uri, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # so that no test finds another's cached files
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my läke"))


def make_dataset(folder):
    with store.create_shard(folder, "train/00000", ".bin") as shard:
        shard.write(b"abc")
        shard.write(b"defg")
    entries = (shard.entry(tokens=7), store.write_file(folder, "notes é.txt", b"hello"))
    manifest = store.Manifest("windows", "f00", entries, {"size": 3})
    return manifest, store.publish_manifest(folder, manifest)


def test_manifest_is_published_once_and_reads_back(lake_uri):
    folder = join(lake_uri, "datasets", "windows", "f00")
    assert store.read_manifest(folder) is None
    manifest, first = make_dataset(folder)
    assert first
    _, second = make_dataset(folder)
    assert not second
    assert store.read_manifest(folder) == manifest
    store.verify_sizes(folder, manifest)
    paths = [store.verified_file(folder, entry) for entry in manifest.files]
    assert [path.read_bytes() for path in paths] == [b"abcdefg", b"hello"]


@pytest.mark.parametrize(("content", "reason"), [(b"abc", "has 3 bytes"), (b"abcdefX", "differs"), (None, "missing")])
def test_damaged_shard_is_refused(lake_uri, content, reason):
    folder = join(lake_uri, "d")
    manifest, _ = make_dataset(folder)
    shard = join(folder, manifest.files[0].name)
    if content is None:
        store.delete_folder(join(folder, "train"))
    else:
        store.write_bytes(shard, content)
    with pytest.raises(DamagedError, match=reason) as caught:
        store.verified_file(folder, manifest.files[0])
    assert f"delete {folder} " in str(caught.value)
    if content != b"abcdefX":
        with pytest.raises(DamagedError, match=reason):
            store.verify_sizes(folder, manifest)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", ".", ""])
def test_a_manifest_whose_names_lead_elsewhere_is_refused(name):
    data = store.manifest_bytes(store.Manifest("model", "f00", (store.FileEntry(name, 1, "00"),)))
    with pytest.raises(DamagedError, match="not a manifest"):
        store.parse_manifest(data, "file:///d/_manifest.json")


def test_objects(lake_uri):
    uri = join(lake_uri, "a b", "c+d é.json")
    assert not store.exists(uri)
    with pytest.raises(FileNotFoundError):
        store.read_bytes(uri)
    store.write_json(uri, {"x": [1]})
    store.write_json(uri, {"x": [1, 2]})
    assert store.exists(uri)
    assert store.read_json(uri) == {"x": [1, 2]}
    assert not store.publish(uri, b"other")
    assert store.read_json(uri) == {"x": [1, 2]}
    assert [info.uri for info in store.list_files(lake_uri)] == [uri]
    with store.open_input(uri) as file:
        file.seek(2)
        assert file.read(4) == b'  "x'
    store.delete_folder(join(lake_uri, "a b"))
    assert store.list_files(lake_uri) == []
    assert store.list_files(join(lake_uri, "nowhere")) == []


def test_broken_json_is_named(lake_uri):
    uri = join(lake_uri, "x.json")
    store.write_bytes(uri, b"{")
    with pytest.raises(DamagedError, match=r"x\.json: not valid JSON"):
        store.read_json(uri)


def test_a_failed_write_leaves_nothing(tmp_path):
    uri = to_uri(str(tmp_path / "x"))
    with pytest.raises(TypeError):
        store.write_bytes(uri, "text")
    assert list(tmp_path.iterdir()) == []
    assert not local_path(uri).exists()


def test_not_writable(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(store.InputError, match="cannot be written"):
        store.check_writable(to_uri(str(tmp_path / "file" / "lake")))
    store.check_writable(to_uri(str(tmp_path / "new")))
    with pytest.raises(store.InputError, match="cannot be written"):
        store.check_writable("s3://no-such-bucket-here/lake")


def test_copies_of_s3_are_forgotten_when_they_were_not_used_for_days(s3_uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    entries = [store.write_file(s3_uri, f"{name}.txt", name.encode()) for name in ("old", "used", "new")]
    old, used = (store.verified_file(s3_uri, entry) for entry in entries[:2])
    for path in (old, used):
        os.utime(path, (0, 0))
    assert store.verified_file(s3_uri, entries[1]) == used
    new = store.verified_file(s3_uri, entries[2])
    assert sorted(tmp_path.rglob("*")) == sorted([new.parent, used, new])
    assert store.verified_file(s3_uri, entries[0]).read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_somebody_else_is_refused(s3_uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"nightjar-cache-{os.getuid()}"
    folder.mkdir()
    os.chown(folder, 1, -1)
    with pytest.raises(InputError, match="belongs to somebody else"):
        store.verified_file(s3_uri, store.write_file(s3_uri, "a.txt", b"a"))
