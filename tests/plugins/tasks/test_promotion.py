"""Promotion of models, on a local disk and on S3."""

import json
from datetime import datetime

import pytest

from jobs.errors import DamagedError, NightjarError
from jobs.lake.champion import MODEL_FILES, roll_back
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import Manifest
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar.aws import s3_client, store
from nightjar.tasks import promotion
from nightjar.tasks.results import verify_folder
from tests.support.finished import ROWS, config_of, finished, score

pytestmark = pytest.mark.slow

BY = "airflow: scheduled"


@pytest.fixture
def lake(lake_uri):
    return Lake(lake_uri)


def promote(run, **options):
    return promotion.promote(run, BY, config_of(), **options)


def pointer(lake):
    return store().read_json(lake.pipeline("poems").champion)


def decision(run):
    return store().read_json(run.promotion)


def test_the_first_good_model_is_champion_and_copied(lake):
    run = finished(lake, "one")
    decided = promote(run, request="train poems one")
    assert decided["promoted"]
    assert decided["why"] == "1.8227 bits per byte, the first champion"
    found = pointer(lake)
    assert (found["model"], found["run_id"]) == (decided["model"], "one")
    [change] = found["history"]
    assert datetime.fromisoformat(change.pop("time")).tzinfo is not None
    metrics = change.pop("metrics")
    assert (metrics["bits_per_byte"], metrics["valid_loss"]) == (pytest.approx(1.8227, abs=1e-4), 4.0)
    assert change == {
        "action": "promoted", "model": decided["model"], "run": run.folder, "by": BY, "why": decided["why"],
        "request": "train poems one",
    }  # fmt: skip
    manifest = verify_folder(join(lake.models, decided["model"]), store())
    assert {entry.name for entry in manifest.files} == MODEL_FILES
    assert decision(run)["why"] == decided["why"]


def test_only_a_better_model_takes_its_place(lake):
    first = promote(finished(lake, "one"))["model"]
    for run_id, loss, why in (
        ("worse", 151.0, "its loss is 0.66% higher than the champion's on 40 documents"),
        ("same", 150.0, "its loss is 0.00% lower than the champion's on 40 documents"),
        ("hardly better", 149.9, "0.07% lower than the champion's on 40 documents, but a new champion needs"),
    ):
        run = finished(lake, run_id, run_id, loss=loss, champion=first)
        decided = promote(run)
        assert (decided["promoted"], decided["model"]) == (False, None)
        assert why in decided["why"]
        assert decision(run)["gain"]["num_documents"] == 40
    assert pointer(lake)["run_id"] == "one"
    better = promote(finished(lake, "better", "better", loss=147.0, champion=first))
    assert better["promoted"]
    assert "1.99% below the previous champion (at least 1.98%)" in better["why"]
    assert [each["run"] for each in pointer(lake)["history"]] == ["lab/poems/one", "lab/poems/better"]


def test_a_request_that_is_made_again_changes_nothing(lake):
    run = finished(lake, "one")
    first = promote(run, request="one")
    before = pointer(lake)
    again = promote(run, request="one")
    assert (again["promoted"], again["model"]) == (True, first["model"])
    assert pointer(lake) == before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"valid_loss": 5.6}, "not below the unigram baseline 5.5000"),
        ({"valid_loss": 4.7}, "not below the bigram baseline 4.5000"),
        ({"valid_loss": float("nan")}, "its validation loss nan is not below"),
        ({"loss": None}, "its loss of document 000000000000 is not finite"),
        ({"rows": [{"prompt": "The end", "text": "a a a a a a a a", "tokens": [1] * 8}]}, "80% of the 4-grams"),
        ({"rows": ROWS[:1]}, "it continues the canary prompt 'The end' with nothing"),
        (
            {"rows": [{"prompt": "The end", "text": "<unk> a", "tokens": [0, 1]}]},
            "50% of the tokens",
        ),
    ],
)
def test_a_model_that_is_no_good_is_not_promoted(lake, changes, why):
    decided = promote(finished(lake, "one", **changes))
    assert not decided["promoted"]
    assert why in decided["why"]
    assert store().list_files(lake.models) == []


def test_a_short_training_need_not_beat_the_bigram_baseline_if_the_settings_say_so(lake):
    run = finished(lake, "one", valid_loss=4.7)
    assert promotion.promote(run, BY, config_of(baseline="unigram"))["promoted"]


def test_a_champion_that_cannot_be_compared_stays(lake):
    first = promote(finished(lake, "one"))["model"]
    run = finished(lake, "two", "two", loss=100.0, champion=first)
    score(run, "two", 100.0, first, "the champion predicts embeddings, and this model tokens")
    assert promote(run)["why"] == (
        "the champion predicts embeddings, and this model tokens;"
        " to make it the champion anyway, run nightjar champion promote lab/poems/two"
    )


def test_a_split_that_is_not_for_life_gives_the_first_champion_alone(lake):
    first = finished(lake, "one", bits_per_byte=2.5)
    store().delete_folder(first.score)
    decided = promotion.promote(first, BY, config_of("auto"))
    assert (decided["promoted"], decided["why"]) == (True, "2.5000 bits per byte, the first champion")
    assert pointer(lake)["history"][0]["metrics"]["bits_per_byte"] == 2.5
    decided = promotion.promote(finished(lake, "two", "two"), BY, config_of("auto"))
    assert not decided["promoted"]
    assert decided["why"].startswith("it cannot be compared with the champion: windows.split=auto divides")


def test_scores_of_another_model_or_none_are_an_error(lake):
    run = finished(lake, "one")
    score(run, "another", 100.0, None)
    with pytest.raises(DamagedError, match="has the scores of another model"):
        promote(run)
    store().delete_folder(run.score)
    with pytest.raises(NightjarError, match="has no scores of documents; clear the task score"):
        promote(run)


def test_an_incomplete_model_is_an_error(lake):
    run = finished(lake, "one")
    store().delete_file(join(run.model, "tokenizer.json"))
    with pytest.raises(DamagedError, match=r"tokenizer\.json: missing"):
        promote(run)


def test_a_run_without_statistics_is_an_error(lake):
    with pytest.raises(NightjarError, match=r"stats\.json: missing"):
        promote(lake.run("none", "poems"))


class RacedStore(Store):
    """A store in which something happens after a run has read the champion and before it replaces it."""

    def __init__(self, happens):
        super().__init__(s3_client)
        self.happens = happens

    def publish(self, uri, data):
        self.let_it_happen()
        return super().publish(uri, data)

    def replace(self, uri, data, version):
        self.let_it_happen()
        return super().replace(uri, data, version)

    def let_it_happen(self):
        happens, self.happens = self.happens, None
        if happens:
            happens()


def test_of_two_runs_at_once_one_wins_and_the_other_is_not_compared_with_it(lake):
    rival, slow = finished(lake, "rival", "rival"), finished(lake, "slow", "slow", loss=100.0)
    with pytest.raises(NightjarError, match="another program changed it in the meantime; clear this task"):
        promote(slow, store=RacedStore(lambda: promote(rival)))
    assert pointer(lake)["run_id"] == "rival"
    decided = promote(slow)
    assert not decided["promoted"]
    assert ", but this model was compared with no champion; clear the task score" in decided["why"]


def test_a_rollback_while_a_night_runs_is_not_undone(lake):
    first = promote(finished(lake, "one"))["model"]
    second = promote(finished(lake, "two", "two", loss=140.0, champion=first))["model"]
    night = finished(lake, "three", "three", loss=100.0, champion=second)
    roll_back(lake.pipeline("poems"), "command line: ann", "it writes nonsense", store=store())
    decided = promote(night)
    assert f"the champion is now {first[:12]}, but this model was compared with {second[:12]}" in decided["why"]
    assert pointer(lake)["model"] == first


def test_a_copy_that_broke_off_is_made_whole(lake):
    decided = promote(finished(lake, "one"))
    folder = join(lake.models, decided["model"])
    store().delete_file(join(folder, MANIFEST))
    store().delete_file(join(folder, "config.json"))
    again = finished(lake, "again", loss=100.0, champion=decided["model"])
    assert promote(again)["model"] == decided["model"]
    assert verify_folder(folder, store())


def test_a_model_without_weights_is_an_error(lake):
    run = finished(lake, "one")
    store().write_bytes(join(run.model, MANIFEST), Manifest("model", "weights", ()).to_json())
    with pytest.raises(DamagedError, match=r"no config\.json, model\.safetensors, tokenizer\.json in its manifest"):
        promote(run)


def test_the_decision_can_be_read_by_any_program(lake):
    run = finished(lake, "one", loss=None)
    promote(run)
    data = store().read_bytes(run.promotion)
    assert json.loads(data, parse_constant=pytest.fail)["gain"] is None
