"""Promotion of models, on a local disk and on S3."""

from datetime import datetime

import pytest

from jobs.errors import DamagedError, NightjarError
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import Manifest
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar.aws import s3_client, store
from nightjar.tasks import promotion
from nightjar.tasks.results import verify_folder

pytestmark = pytest.mark.slow

BY = "airflow: scheduled"
GOOD = {"valid_loss": 4.0, "unigram_loss": 5.5, "bits_per_byte": 2.25}


@pytest.fixture
def lake(lake_uri):
    return Lake(lake_uri)


def finished(lake, run_id, weights="weights", **figures):
    run = lake.run(run_id)
    store().write_json(join(run.stats, "stats.json"), GOOD | figures)
    files = {name: f"{name} {weights}".encode() for name in promotion.MODEL_FILES}
    entries = tuple(store().write_file(run.model, name, data) for name, data in files.items())
    store().publish_manifest(run.model, Manifest("model", "f00", entries))
    return run


def pointer(lake):
    return store().read_json(lake.pipeline().champion)


def test_the_first_good_model_is_champion_and_copied(lake):
    decided = promotion.promote(finished(lake, "one"), BY)
    assert decided["promoted"]
    found, run = pointer(lake), lake.run("one")
    assert (found["model"], found["run_id"], found["metrics"]) == (decided["model"], "one", GOOD)
    [change] = found["history"]
    assert datetime.fromisoformat(change.pop("time")).tzinfo is not None
    assert change == {
        "action": "promoted", "model": decided["model"], "run": run.folder, "by": BY, "why": decided["why"],
        "metrics": GOOD, "request": "",
    }  # fmt: skip
    manifest = verify_folder(join(lake.models, decided["model"]), store())
    assert {entry.name for entry in manifest.files} == promotion.MODEL_FILES


def test_only_a_better_model_takes_its_place(lake):
    promotion.promote(finished(lake, "one"), BY)
    worse = promotion.promote(finished(lake, "two", "other", bits_per_byte=2.3), BY)
    assert (worse["promoted"], worse["model"]) == (False, None)
    assert "2.3000 bits per byte, not better than the 2.2500 of champion one" in worse["why"]
    assert pointer(lake)["run_id"] == "one"
    better = promotion.promote(finished(lake, "three", "third", bits_per_byte=2.2), BY)
    assert better["promoted"]
    assert pointer(lake)["run_id"] == "three"


def test_promoting_again_changes_nothing(lake):
    run = finished(lake, "one")
    promotion.promote(run, BY)
    before = pointer(lake)
    assert not promotion.promote(run, BY)["promoted"]
    assert pointer(lake) == before


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"valid_loss": 5.5}, "not below the unigram baseline"),
        ({"valid_loss": float("nan")}, "valid_loss is None"),
        ({"bits_per_byte": None}, "bits_per_byte is None"),
    ],
)
def test_a_model_that_learned_nothing_is_not_promoted(lake, figures, why):
    decided = promotion.promote(finished(lake, "one", **figures), BY)
    assert not decided["promoted"]
    assert why in decided["why"]
    assert store().list_files(lake.models) == []


def test_an_incomplete_model_is_an_error(lake):
    run = finished(lake, "one")
    store().delete_file(join(run.model, "tokenizer.json"))
    with pytest.raises(DamagedError, match=r"tokenizer\.json: missing"):
        promotion.promote(run, BY)


def test_a_run_without_statistics_is_an_error(lake):
    with pytest.raises(NightjarError, match=r"stats\.json: missing"):
        promotion.promote(lake.run("none"), BY)


class RacedStore(Store):
    """A store in which other runs are promoted after a run has read the champion and before it replaces it."""

    def __init__(self, *rivals):
        super().__init__(s3_client)
        self.rivals = list(rivals)
        self.copied = []

    def copy(self, uri, target_uri):
        self.copied.append(target_uri)
        super().copy(uri, target_uri)

    def publish(self, uri, data):
        self.let_a_rival_win()
        return super().publish(uri, data)

    def replace(self, uri, data, version):
        self.let_a_rival_win()
        return super().replace(uri, data, version)

    def let_a_rival_win(self):
        if self.rivals:
            assert promotion.promote(self.rivals.pop(0), BY)["promoted"]


def test_of_two_runs_at_once_the_better_one_wins(lake):
    rival = finished(lake, "rival", "rival", bits_per_byte=2.1)
    decided = promotion.promote(finished(lake, "slow", bits_per_byte=2.2), BY, RacedStore(rival))
    assert not decided["promoted"]
    assert pointer(lake)["run_id"] == "rival"


def test_a_lost_race_copies_the_model_only_once(lake):
    rivals = [finished(lake, f"rival {n}", f"rival {n}", bits_per_byte=2.2 - n / 100) for n in range(3)]
    store = RacedStore(*rivals)
    assert promotion.promote(finished(lake, "best", bits_per_byte=2.0), BY, store)["promoted"]
    assert pointer(lake)["run_id"] == "best"
    assert len(store.copied) == len(set(store.copied)) == len(promotion.MODEL_FILES) + 1


def test_a_run_that_loses_every_race_gives_up(lake):
    rivals = [finished(lake, f"rival {n}", f"rival {n}", bits_per_byte=2.2 - n / 100) for n in range(5)]
    with pytest.raises(NightjarError, match="other runs replaced it 5 times in a row"):
        promotion.promote(finished(lake, "best", bits_per_byte=2.0), BY, RacedStore(*rivals))


def test_a_copy_that_broke_off_is_made_whole(lake):
    decided = promotion.promote(finished(lake, "one"), BY)
    folder = join(lake.models, decided["model"])
    store().delete_file(join(folder, MANIFEST))
    store().delete_file(join(folder, "config.json"))
    assert promotion.promote(finished(lake, "again", bits_per_byte=1.0), BY)["model"] == decided["model"]
    assert verify_folder(folder, store())


def test_a_model_without_weights_is_an_error(lake):
    run = finished(lake, "one")
    store().write_bytes(join(run.model, MANIFEST), Manifest("model", "f00", ()).to_json())
    with pytest.raises(DamagedError, match=r"no config\.json, model\.safetensors, tokenizer\.json in its manifest"):
        promotion.promote(run, BY)
