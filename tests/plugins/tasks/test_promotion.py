import json
from hashlib import sha256

import pytest

from jobs.errors import DamagedError, NightjarError
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.uri import join
from nightjar.storage import open_storage
from nightjar.tasks import promotion
from nightjar.tasks.manifests import verify

GOOD = {"valid_loss": 4.0, "unigram_loss": 5.5, "bits_per_byte": 2.25}


@pytest.fixture
def lake(lake_uri):
    return Lake(lake_uri)


def finished(lake, run_id, weights="weights", **figures):
    run, storage = lake.run(run_id), open_storage(lake.uri)
    storage.write(join(run.stats, "stats.json"), json.dumps(GOOD | figures).encode())
    files = {name: f"{name} {weights}".encode() for name in promotion.MODEL_FILES}
    for name, data in files.items():
        storage.write(join(run.model, name), data)
    entries = [{"name": name, "size": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()]
    storage.write(join(run.model, MANIFEST), json.dumps({"files": entries}).encode())
    return run


def pointer(lake):
    return json.loads(open_storage(lake.uri).read(lake.champion))


def test_the_first_good_model_is_champion_and_copied(lake):
    decided = promotion.promote(finished(lake, "one"))
    assert decided["promoted"]
    assert pointer(lake) == {"model": decided["model"], "run_id": "one", **GOOD}
    manifest = verify(join(lake.models, decided["model"]), open_storage(lake.uri))
    assert {entry["name"] for entry in manifest["files"]} == promotion.MODEL_FILES


def test_only_a_better_model_takes_its_place(lake):
    promotion.promote(finished(lake, "one"))
    worse = promotion.promote(finished(lake, "two", "other", bits_per_byte=2.3))
    assert (worse["promoted"], worse["model"]) == (False, None)
    assert "2.3000 bits per byte, not better than the 2.2500 of champion one" in worse["why"]
    assert pointer(lake)["run_id"] == "one"
    better = promotion.promote(finished(lake, "three", "third", bits_per_byte=2.2))
    assert better["promoted"]
    assert pointer(lake)["run_id"] == "three"


def test_promoting_again_changes_nothing(lake):
    run = finished(lake, "one")
    promotion.promote(run)
    before = pointer(lake)
    assert not promotion.promote(run)["promoted"]
    assert pointer(lake) == before


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"valid_loss": 5.5}, "not below the unigram baseline"),
        ({"valid_loss": float("nan")}, "valid_loss is nan"),
        ({"bits_per_byte": None}, "bits_per_byte is None"),
    ],
)
def test_a_model_that_learned_nothing_is_not_promoted(lake, figures, why):
    decided = promotion.promote(finished(lake, "one", **figures))
    assert not decided["promoted"]
    assert why in decided["why"]
    assert open_storage(lake.uri).list_files(lake.models) == []


def test_an_incomplete_model_is_an_error(lake):
    run = finished(lake, "one")
    open_storage(lake.uri).delete(join(run.model, "tokenizer.json"))
    with pytest.raises(DamagedError, match=r"tokenizer\.json: missing"):
        promotion.promote(run)


def test_a_run_without_statistics_is_an_error(lake):
    with pytest.raises(NightjarError, match=r"stats\.json: missing"):
        promotion.promote(lake.run("none"))


def test_of_two_at_once_the_better_one_wins(lake, monkeypatch):
    """Another run moves the pointer between this one's look and its write."""
    run, rival = finished(lake, "slow", bits_per_byte=2.2), finished(lake, "rival", "rival", bits_per_byte=2.1)
    copy = promotion._copy_model

    def copy_slowly(*arguments):
        monkeypatch.setattr(promotion, "_copy_model", copy)
        assert promotion.promote(rival)["promoted"]
        return copy(*arguments)

    monkeypatch.setattr(promotion, "_copy_model", copy_slowly)
    assert not promotion.promote(run)["promoted"]
    assert pointer(lake)["run_id"] == "rival"


def test_a_copy_that_broke_off_is_made_whole(lake):
    decided = promotion.promote(finished(lake, "one"))
    folder, storage = join(lake.models, decided["model"]), open_storage(lake.uri)
    storage.delete(join(folder, MANIFEST))
    storage.delete(join(folder, "config.json"))
    assert promotion.promote(finished(lake, "again", bits_per_byte=1.0))["model"] == decided["model"]
    assert verify(folder, storage)


def test_a_model_without_weights_is_an_error(lake):
    run = finished(lake, "one")
    open_storage(lake.uri).write(join(run.model, MANIFEST), b'{"files": []}')
    with pytest.raises(DamagedError, match=r"no config\.json, model\.safetensors, tokenizer\.json in its manifest"):
        promotion.promote(run)
