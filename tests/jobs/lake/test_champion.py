"""The champion of each pipeline: its file, its history, and that of the earlier layout."""

import json
from dataclasses import replace

import pytest

from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.champion import (
    Change,
    all_pipelines,
    champions_pipeline,
    change_champion,
    format_champion,
    read_champion,
    roll_back,
)
from jobs.lake.layout import Lake, Pipeline
from jobs.lake.manifest import Manifest
from jobs.lake.models import find_model
from jobs.lake.uri import join
from jobs.sources.inputs import find_start

METRICS = {"bits_per_byte": 2.0}


@pytest.fixture(params=["file", "s3"])
def lake(request, tmp_path):
    return Lake((tmp_path / "lake").as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))


def promoted(model, run="lab/poems/night-1"):
    return Change("promoted", model, run, "2026-11-26T02:00:00+00:00", "airflow: scheduled", "better", METRICS)


def promote(pipeline, model):
    return change_champion(pipeline, *read_champion(pipeline), promoted(model))


def test_each_pipeline_has_a_champion_with_its_history(lake):
    poems = lake.pipeline("poems")
    assert read_champion(poems) == (None, "")
    assert promote(poems, "a" * 64)
    assert promote(poems, "b" * 64)
    found, _ = read_champion(poems)
    assert (found.model, found.run_id, found.run, found.metrics) == ("b" * 64, "night-1", "lab/poems/night-1", METRICS)
    assert found.model_uri == join(lake.models, "b" * 64)
    assert found.history == (promoted("a" * 64), promoted("b" * 64))
    assert read_champion(lake.pipeline()) == (None, "")
    assert [each.name for each in all_pipelines(lake)] == ["default", "poems"]


def test_of_two_changes_at_once_one_is_made(lake):
    poems = lake.pipeline("poems")
    nothing = read_champion(poems)
    assert promote(poems, "a" * 64)
    assert not change_champion(poems, *nothing, promoted("c" * 64))
    first = read_champion(poems)
    assert promote(poems, "b" * 64)
    assert not change_champion(poems, *first, promoted("c" * 64))
    assert [each.model for each in read_champion(poems)[0].history] == ["a" * 64, "b" * 64]


def test_the_earlier_champion_is_that_of_the_default_pipeline_until_it_has_one(lake):
    store.write_json(lake.earlier_champion, {"model": "e" * 64, "run_id": "old", **METRICS})
    found, version = read_champion(lake.pipeline())
    assert (found.model, found.run_id, found.run, found.metrics, version) == ("e" * 64, "old", "", METRICS, "")
    assert read_champion(lake.pipeline("poems"))[0] is None
    keep_model(lake, "e" * 64)
    assert promote(lake.pipeline(), "a" * 64)
    assert read_champion(lake.pipeline())[0].model == "a" * 64
    assert back(lake.pipeline(), "old").metrics == METRICS
    assert read_champion(lake.pipeline())[0].model == "e" * 64


def test_names_of_champions(lake, tmp_path):
    assert champions_pipeline("champion", lake) == lake.pipeline()
    assert champions_pipeline("champion:poems", lake) == lake.pipeline("poems")
    assert champions_pipeline("champions", lake) is None
    with pytest.raises(InputError, match="champion:: the pipeline is missing"):
        champions_pipeline("champion:", lake)
    with pytest.raises(InputError, match=r"pipelines/poems/champion.json: no champion yet"):
        find_model("champion:poems", lake)
    assert find_start("champion-or-scratch:poems", lake) is None
    with pytest.raises(InputError, match=r"or set train\.init=champion-or-scratch:poems"):
        find_start("champion:poems", lake)
    assert promote(lake.pipeline("poems"), "a" * 64)
    for name in ("champion:poems", "champion-or-scratch:poems"):
        assert find_start(name, lake) == join(lake.models, "a" * 64)


def test_a_run_follows_its_own_pipeline(lake):
    assert Pipeline.of(lake.run("night-1", "poems")) == lake.pipeline("poems")
    assert Pipeline.of(lake.run("by hand")) == lake.pipeline("local")
    for run in (lake.earlier_run("old"), lake.run("night-1", "default")):
        assert Pipeline.of(run) == lake.pipeline()


@pytest.mark.parametrize("change", [{"history": [1]}, {"history": [{"model": 1}]}, {"metrics": 3}])
def test_a_damaged_file_is_named(lake, change):
    values = json.loads(format_champion("a" * 64, "one", METRICS)) | change
    store.write_json(lake.pipeline().champion, values)
    with pytest.raises(DamagedError, match=r"pipelines/default/champion.json: "):
        read_champion(lake.pipeline())


def keep_model(lake, model):
    folder = join(lake.models, model)
    entry = store.write_file(folder, "config.json", b"{}")
    store.publish_manifest(folder, Manifest("model", model, (entry,)))


@pytest.fixture
def three(lake):
    """A pipeline that had three champions."""
    poems = lake.pipeline("poems")
    for name in "abc":
        keep_model(lake, name * 64)
        change = replace(promoted(name * 64, f"lab/poems/night-{name}"), metrics={"bits_per_byte": ord(name)})
        assert change_champion(poems, *read_champion(poems), change)
    return poems


def back(pipeline, to="", **options):
    return roll_back(pipeline, "command line: ann", "it writes nonsense", to, **options)


def test_the_champion_before_is_champion_again_with_its_numbers(three):
    change = back(three)
    found, _ = read_champion(three)
    assert (found.model, found.run_id, found.metrics) == ("b" * 64, "night-b", {"bits_per_byte": ord("b")})
    assert found.history[-1] == change
    assert (change.action, change.by, change.why) == ("rolled back", "command line: ann", "it writes nonsense")
    assert len(found.history) == 4


@pytest.mark.parametrize("to", ["a", "aaaa", "a" * 64, "night-a", "lab/poems/night-a"])
def test_any_earlier_champion_can_be_named(three, to):
    assert back(three, to).model == "a" * 64


@pytest.mark.parametrize("to", ["c", "night-c", "d", "", "n"])
def test_what_is_no_earlier_champion_is_refused(three, to):
    if not to:
        three = Lake(three.lake_uri).pipeline("prose")
    with pytest.raises(InputError, match="no earlier champion to go back to; run nightjar champion show p"):
        back(three, to)


def test_a_name_that_fits_several_is_refused(lake, three):
    keep_model(lake, "ab" * 32)
    assert change_champion(three, *read_champion(three), promoted("ab" * 32))
    assert change_champion(three, *read_champion(three), promoted("c" * 64))
    with pytest.raises(InputError, match=r"several earlier champions fit a: aaaaaaaaaaaa \(run night-a\), abababab"):
        back(three, "a")


def test_a_model_that_is_gone_or_damaged_is_no_champion(lake, three):
    store.delete_folder(join(lake.models, "b" * 64))
    with pytest.raises(InputError, match="the model of run night-b was deleted; choose another champion"):
        back(three)
    store.delete_file(join(lake.models, "a" * 64, "config.json"))
    with pytest.raises(DamagedError, match=r"config\.json"):
        back(three, "a")
    assert read_champion(three)[0].model == "c" * 64


def test_a_request_that_is_made_again_changes_nothing(three):
    first = back(three, request="run 1")
    assert back(three, request="run 1") == first
    assert read_champion(three)[0].model == "b" * 64
    assert back(three, request="run 2").model == "a" * 64


def test_a_champion_that_was_rolled_back_is_chosen_only_by_name(lake, three):
    assert [back(three).model[0], back(three).model[0]] == ["b", "a"]
    with pytest.raises(InputError, match="no earlier champion to go back to"):
        back(three)
    assert back(three, "night-c").model == "c" * 64
    keep_model(lake, "d" * 64)
    assert change_champion(three, *read_champion(three), promoted("d" * 64))
    assert [back(three).model[0], back(three).model[0]] == ["c", "a"]


def test_a_model_that_is_promoted_twice_has_one_place(lake, three):
    assert change_champion(three, *read_champion(three), promoted("c" * 64))
    assert back(three).model == "b" * 64
