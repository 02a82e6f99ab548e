import json

import pytest

from jobs.errors import DamagedError
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from nightjar.storage import open_storage
from nightjar.tasks.manifests import output_uri, verify


def manifest(**entry):
    return json.dumps({"files": [{"name": "train/0.arrow", "size": 5, **entry}], "counts": {"tokens": 3}}).encode()


@pytest.fixture
def folder(lake_uri):
    storage, uri = open_storage(lake_uri), join(lake_uri, "set")
    storage.write(join(uri, "train/0.arrow"), b"shard")
    storage.write(join(uri, "_manifest.json"), manifest())
    return uri


def test_a_whole_dataset_verifies(folder):
    assert verify(folder, open_storage(folder))["counts"] == {"tokens": 3}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train/0.arrow", b"shar", "has 4 bytes, the manifest says 5"),
        ("_manifest.json", manifest(name="train/1.arrow"), r"1\.arrow: missing"),
        ("_manifest.json", b"{", "not JSON"),
        ("_manifest.json", b"[]", "not a JSON object"),
    ],
)
def test_damage_is_named(folder, name, data, message):
    open_storage(folder).write(join(folder, name), data)
    with pytest.raises(DamagedError, match=message):
        verify(folder, open_storage(folder))


def test_no_manifest_no_dataset(folder):
    open_storage(folder).delete(join(folder, "_manifest.json"))
    with pytest.raises(DamagedError, match=r"_manifest\.json: missing"):
        verify(folder, open_storage(folder))


def test_where_each_step_leaves_its_work(lake_uri):
    lake, storage = Lake(lake_uri), open_storage(lake_uri)
    run = lake.run("one")
    storage.write(run.datasets, b'{"tokens": "abc", "windows": null}')
    assert output_uri("tokenize", run, storage) == lake.tokens("abc")
    assert output_uri("train", run, storage) == run.train
    assert output_uri("generate", run, storage) == run.generate
    with pytest.raises(DamagedError, match="names no dataset of windows"):
        output_uri("windows", run, storage)
