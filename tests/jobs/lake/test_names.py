"""Names from outside stay in their folder: 300 hostile ones through each place where a name becomes a path."""

import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from jobs.errors import DamagedError, InputError
from jobs.lake import cache, store
from jobs.lake.champion import read_champion
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import FileEntry, Manifest, parse_manifest
from jobs.lake.names import below, confined, is_plain
from jobs.lake.uri import join, local_path
from jobs.model_io.archive import unpack
from tests.support.hostile import NAMES

many = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHA256 = "0" * 64


def is_inside(folder, uri):
    root, path = (os.path.normpath(local_path(each)) for each in (folder, uri))
    return path != root and os.path.commonpath((root, path)) == root


@given(NAMES)
@many
def test_a_name_below_a_folder_stays_there_or_is_refused(name):
    for folder in ("file:///data/my%20lake/x", "s3://bucket/lake/x"):
        if not is_plain(name):
            message = r"^[^\n]* is not a valid name for a file in this folder; remove this name$"
            with pytest.raises(DamagedError, match=message):
                below(folder, name)
            continue
        assert below(folder, name).startswith(f"{folder}/")
        assert is_inside("file:///data/my%20lake/x", below("file:///data/my%20lake/x", name))


@given(NAMES)
@many
def test_the_names_in_a_manifest_stay_in_its_folder(name):
    content = Manifest("x", "f", (FileEntry(name, 1, SHA256),)).to_json()
    try:
        (entry,) = parse_manifest(content, "file:///lake/x/_manifest.json").files
    except DamagedError:
        return
    assert is_inside("file:///lake/x", join("file:///lake/x", entry.name))


@given(NAMES)
@many
def test_the_names_in_a_zip_file_stay_in_its_folder(tmp_path, name):
    place = tmp_path / "model.zip"
    entry = FileEntry.of(name, b"content")
    try:
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr(MANIFEST, Manifest("model", "f", (entry,)).to_json())
            archive.writestr(zipfile.ZipInfo(name or "x"), b"content")
    except (UnicodeEncodeError, ValueError):  # no zip file can have this name
        return
    folder = tmp_path / "deep" / "er" / "folder"
    with suppress(DamagedError):
        store.write_folder(folder.as_uri(), unpack(place.as_uri()))
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - {place}
    assert all(path.parent == folder for path in written)


@given(NAMES)
@many
def test_a_dataset_and_a_champion_lie_in_the_lake(tmp_path, name):
    lake = Lake(tmp_path.as_uri())
    store.write_bytes(lake.pipeline().champion, json.dumps({"model": name, "run_id": name}).encode())
    for find in (lambda: lake.dataset("tokens", name), lambda: read_champion(lake.pipeline())[0].model_uri):
        with suppress(DamagedError):
            assert is_inside(lake.uri, find())


@given(NAMES)
@many
def test_a_hash_in_a_manifest_is_no_path_of_the_cache(name):
    if not name.isalnum():
        with pytest.raises(DamagedError):
            parse_manifest(Manifest("x", "f", (FileEntry("a", 1, name),)).to_json(), "s3://b/x/_manifest.json")


def test_a_file_of_the_cache_stays_in_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    for sha256 in ("../../x", "/etc/passwd", "..", ""):
        with pytest.raises(DamagedError, match="is not a valid name for a file in this folder"):
            cache.verified_file("s3://bucket/x", FileEntry("a", 1, sha256))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_links_that_lead_out_of_a_folder_are_refused(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for each in (folder / "inner", outside):
        each.mkdir(parents=True)
        (each / "file").write_text("x")
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(Path("..") / "outside" / "file")
    (folder / "same").symlink_to(folder / "inner")
    (folder / "circle").symlink_to(folder / "circle")
    (tmp_path / "other name").symlink_to(folder)
    for uri in (folder.as_uri(), (tmp_path / "other name").as_uri()):
        assert confined(uri, "inner/file") == join(uri, "inner/file")
        assert confined(uri, "same/file") == join(uri, "same/file")
        assert confined(uri, "new/file") == join(uri, "new/file")
        for name in ("link/file", "file", "link", "link/new"):
            with pytest.raises(InputError, match="is a link that leads out of"):
                confined(uri, name, InputError)


@pytest.mark.parametrize("name", [None, 1, [], {}, b"a"])
def test_a_value_that_is_no_text_is_no_name(name):
    with pytest.raises(DamagedError, match="is not a valid name for a file"):
        below("s3://bucket/x", name)


@pytest.mark.parametrize("name", ["a", "a/b.txt", "..a", "a..", "é", "a b", ".hidden", "~", "%2e%2e", "x" * 255])
def test_plain_names_are_accepted(name):
    assert below("s3://bucket/x", name) == f"s3://bucket/x/{name}"
