"""What a run is made of, and whether it is the same as the last successful one."""

import os
import uuid

import boto3
import pytest

from jobs.config import resolve
from jobs.lake.layout import Lake, Pipeline
from nightjar.aws import store
from nightjar.settings import PROJECT_ROOT
from nightjar.tasks import preflight, unchanged

TEXT = "One line of text.\n" * 200


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "my texts"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT)
    return folder


@pytest.fixture
def lake(lake_uri):
    return Lake(lake_uri)


@pytest.fixture(autouse=True)
def emr_at_home(lake_uri):
    """An EMR that is not on AWS, and that no check asks."""
    client = boto3.client("emr", "us-east-1", endpoint_url="http://localhost:1")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(preflight.aws, "emr_client", lambda: client)
        yield


def prepare(lake, corpus, run_id="", **settings):
    run = lake.run(run_id or f"night-{uuid.uuid4().hex[:8]}", "poems")
    config = resolve(corpus.as_uri(), "tiny", {"windows.size": 16, **settings})
    return run, preflight.prepare(config, run, skips_unchanged=True)


@pytest.fixture
def first(lake, corpus):
    run, prepared = prepare(lake, corpus)
    assert prepared.same_as is None
    unchanged.record(run, prepared.made_of, store())
    return run


def test_a_night_of_the_same_leaves_no_trace(lake, corpus, first):
    run, prepared = prepare(lake, corpus)
    assert prepared.same_as == first.folder
    assert store().list_files(run.uri) == []


def test_the_same_run_again_does_its_work(lake, corpus, first):
    assert prepare(lake, corpus, first.run_id)[1].same_as is None


def touch(corpus):
    os.utime(corpus / "a.txt", (1, 1))


@pytest.mark.parametrize(
    "change",
    [
        touch,
        lambda corpus: (corpus / "a.txt").write_text(TEXT[:-2] + "!\n"),
        lambda corpus: (corpus / "b.txt").write_text(TEXT),
        lambda corpus: (corpus / "a.txt").rename(corpus / "b.txt"),
    ],
    ids=["written anew", "other text of the same size", "new file", "other name"],
)
def test_another_text_is_a_change(lake, corpus, first, change):
    change(corpus)
    run, prepared = prepare(lake, corpus)
    assert prepared.same_as is None
    assert store().exists(run.config)


def test_other_settings_are_a_change_and_other_machines_are_not(lake, corpus, first):
    assert prepare(lake, corpus, **{"train.seed": 7})[1].same_as is None
    assert prepare(lake, corpus, **{"promotion.least_gain": 0.1})[1].same_as is None
    assert prepare(lake, corpus, **{"cluster.core_instances": 3})[1].same_as == first.folder


def test_other_code_is_a_change(lake, corpus, first, tmp_path, monkeypatch):
    root = tmp_path / "other code"
    (root / "jobs").mkdir(parents=True)
    (root / "jobs" / "__init__.py").write_text("")
    monkeypatch.setenv("NIGHTJAR_PACKAGE_ROOT", str(root))
    assert prepare(lake, corpus)[1].same_as is None
    monkeypatch.setenv("NIGHTJAR_PACKAGE_ROOT", str(PROJECT_ROOT))
    assert prepare(lake, corpus)[1].same_as == first.folder


def test_each_pipeline_has_a_last_run_of_its_own(lake, corpus, first):
    run = lake.run("night", "prose")
    made_of = prepare(lake, corpus)[1].made_of
    assert unchanged.find_same(run, made_of, store()) is None
    assert unchanged.find_same(lake.run("night", "poems"), made_of, store()) == first.folder


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"runs": {}}', b"3"])
def test_a_damaged_record_lets_the_run_work_and_is_written_anew(lake, corpus, first, content):
    store().write_bytes(Pipeline.of(first).last, content)
    run, prepared = prepare(lake, corpus)
    assert prepared.same_as is None
    unchanged.record(run, prepared.made_of, store())
    assert prepare(lake, corpus)[1].same_as == run.folder


def test_a_trial_with_other_settings_does_not_make_the_next_night_work(lake, corpus, first):
    trial, prepared = prepare(lake, corpus, **{"train.seed": 7})
    unchanged.record(trial, prepared.made_of, store())
    assert prepare(lake, corpus)[1].same_as == first.folder
    assert prepare(lake, corpus, **{"train.seed": 7})[1].same_as == trial.folder


def test_a_text_that_is_as_it_was_before_the_last_change_is_a_change(lake, corpus, first):
    (corpus / "b.txt").write_text(TEXT)
    other, prepared = prepare(lake, corpus)
    unchanged.record(other, prepared.made_of, store())
    (corpus / "b.txt").unlink()
    assert prepare(lake, corpus)[1].same_as is None


def test_a_record_does_not_grow_for_ever(lake, corpus, first, monkeypatch):
    monkeypatch.setattr(unchanged, "MOST_RUNS", 2)
    for seed in (7, 8):
        run, prepared = prepare(lake, corpus, **{"train.seed": seed})
        unchanged.record(run, prepared.made_of, store())
    assert len(store().read_json(Pipeline.of(first).last)["runs"]) == 2
    assert prepare(lake, corpus)[1].same_as is None


def test_without_the_wish_a_run_of_the_same_works(lake, corpus, first):
    run = lake.run("by hand", "poems")
    prepared = preflight.prepare(resolve(corpus.as_uri(), "tiny", {"windows.size": 16}), run)
    assert (prepared.same_as, store().exists(run.config)) == (None, True)
