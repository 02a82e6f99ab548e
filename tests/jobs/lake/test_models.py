"""The model that a run uses: decided once, whole, and the same for every attempt."""

import json

import pytest

from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.champion import Change, change_champion, copy_model, read_champion
from jobs.lake.layout import Lake
from jobs.lake.models import decide_used, folder_of_run, read_used
from jobs.lake.uri import join
from jobs.model_io.archive import pack
from jobs.model_io.folder import save_model
from tests.support.models import untrained_model


@pytest.fixture(params=["file", "s3"])
def lake(request, tmp_path):
    return Lake((tmp_path / "my lake").as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))


def trained(lake, name, seed=0):
    """A run with a model: its folder, and its zip file."""
    run = lake.run(name)
    store.write_bytes(run.model_archive, pack(save_model(run.model, *untrained_model(seed))))
    return run


def promote(run):
    """Make the model of a run the champion, and return its place."""
    pipeline = Lake(run.lake_uri).pipeline()
    model = copy_model(run)
    change = Change("promoted", model, run.folder, "2026-11-26", "test", "test")
    assert change_champion(pipeline, *read_champion(pipeline), change)
    return join(Lake(run.lake_uri).models, model)


@pytest.mark.parametrize("name", ["one", "scheduled__2026-11-27T02:00:00+00:00", "é 100%"])
def test_the_folder_of_the_run_that_has_a_model_is_known(lake, name):
    run = lake.run(name)
    assert folder_of_run(run.model, lake) == run.folder
    assert folder_of_run(join(lake.models, "0"), lake) == ""


def test_a_run_a_folder_a_zip_file_and_the_champion_are_names_of_a_model(lake):
    run = trained(lake, "one")
    champion = promote(run)
    weights = store.read_manifest(run.model).fingerprint
    places = {"one": run.model, run.model: run.model, run.model_archive: run.model_archive, "champion": champion}
    for number, (name, place) in enumerate(places.items()):
        used = decide_used(lake.run(f"use-{number}"), name)
        assert (used.name, used.uri, used.fingerprint) == (name, place, weights)


def test_a_run_keeps_its_model_when_another_becomes_the_champion(lake):
    first = promote(trained(lake, "one", seed=1))
    used = decide_used(lake.run("use"), "champion")
    assert used.uri == first
    promote(trained(lake, "two", seed=2))
    assert decide_used(lake.run("use"), "champion") == used == read_used(lake.run("use"))
    assert decide_used(lake.run("later"), "champion").fingerprint != used.fingerprint


def test_another_model_at_the_same_place_is_refused(lake):
    decide_used(lake.run("use"), trained(lake, "one", seed=1).model)
    trained(lake, "one", seed=2)
    with pytest.raises(InputError, match=r"one/model: this model was replaced after the run started; start a new run"):
        decide_used(lake.run("use"), "one")


def test_a_model_that_is_missing_or_not_whole_is_named_and_nothing_is_decided(lake):
    run, use = trained(lake, "one"), lake.run("use")
    with pytest.raises(InputError, match="two: no model found"):
        decide_used(use, "two")
    store.delete_file(join(run.model, "model.safetensors"))
    with pytest.raises(DamagedError, match=r"model\.safetensors: missing, though the manifest lists it"):
        decide_used(use, "one")
    manifest = json.loads(store.read_bytes(join(run.model, "_manifest.json")))
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] != "tokenizer.json"]
    store.write_json(join(run.model, "_manifest.json"), manifest)
    with pytest.raises(DamagedError, match=r"no tokenizer\.json in its manifest"):
        decide_used(use, "one")
    store.write_bytes(run.model_archive, b"PK")
    with pytest.raises(DamagedError, match="not a readable zip file"):
        decide_used(use, run.model_archive)
    assert not store.exists(use.used)


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"uri": 1}', b"{"])
def test_a_damaged_decision_is_named(tmp_path, content):
    run = Lake(tmp_path.as_uri()).run("use")
    store.write_bytes(run.used, content)
    with pytest.raises(DamagedError, match=r"use\.json: not what Nightjar writes"):
        read_used(run)
