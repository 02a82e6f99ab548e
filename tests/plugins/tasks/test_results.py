"""The manifests and statistics of a run, on a local disk and on S3, and the verdict."""

import pytest

from jobs.errors import DamagedError
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import Manifest
from jobs.lake.uri import join
from nightjar.aws import store
from nightjar.errors import FinalError, MayStillRunError
from nightjar.tasks import results
from nightjar.tasks.results import verify_step

STEPS = {"tokenize": "tokens", "windows": "windows", "embed": "embeddings"}


@pytest.fixture
def run(lake_uri):
    return Lake(lake_uri).run("one")


def finish(folder, step):
    entry = store().write_file(folder, "train/0.arrow", b"shard")
    store().publish_manifest(folder, Manifest(step, "abc", (entry,), {"step": step}))


def test_each_step_is_verified_where_it_leaves_its_output(run):
    lake = Lake(run.lake_uri)
    folders = {
        "tokenize": lake.dataset("tokens", "a"), "windows": lake.dataset("windows", "b"),
        "embed": lake.dataset("embeddings", "c"),
        "train": run.train, "generate": run.generate,
    }  # fmt: skip
    store().write_json(run.datasets, {"tokens": "a", "windows": "b", "embeddings": "c"})
    for step, folder in folders.items():
        finish(folder, step)
        assert verify_step(step, run, store()).counts == {"step": step}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train/0.arrow", b"shar", "has 4 bytes, the manifest says 5"),
        ("train/0.arrow", None, r"0\.arrow: missing, though the manifest lists it"),
        (MANIFEST, b"{", "not a manifest of format 1"),
        (MANIFEST, b"[]", "not a manifest of format 1"),
        (MANIFEST, None, r"_manifest\.json: missing, though the step has ended"),
    ],
)
def test_damage_is_named(run, name, data, message):
    finish(run.train, "train")
    if data is None:
        store().delete_file(join(run.train, name))
    else:
        store().write_bytes(join(run.train, name), data)
    with pytest.raises(DamagedError, match=message):
        verify_step("train", run, store())


@pytest.mark.parametrize("datasets", [b'{"tokens": null}', b"{}", b"[]", None])
@pytest.mark.parametrize("step", STEPS)
def test_a_run_without_the_dataset_is_damaged(run, step, datasets):
    if datasets is not None:
        store().write_bytes(run.datasets, datasets)
    with pytest.raises(
        DamagedError, match=rf"datasets\.json: has no '{STEPS[step]}', though the step {step} has ended"
    ):
        verify_step(step, run, store())


def test_statistics_are_copied_and_summarized(lake_uri, tmp_path):
    run = Lake(lake_uri).run("one:two")
    stats = {"valid_loss": 4.0, "seconds": {"train": 12.5}, "steps": {"train": {"loss": [1] * 1000}}}
    store().write_json(join(run.stats, "stats.json"), stats)
    store().write_bytes(join(run.stats, "plots/loss.png"), b"png")
    summary = results.pull_stats(run, tmp_path / "here")
    assert summary == {
        "run_id": "one-two",
        "stats_dir": str(tmp_path / "here" / "one-two"),
        "valid_loss": 4.0,
        "seconds": {"train": 12.5},
    }
    assert (tmp_path / "here" / "one-two" / "plots" / "loss.png").read_bytes() == b"png"


def test_a_run_that_failed_early_has_no_statistics(lake_uri, tmp_path):
    summary = results.pull_stats(Lake(lake_uri).run("one"), tmp_path)
    assert summary == {"run_id": "one", "stats_dir": str(tmp_path / "one")}


@pytest.mark.parametrize("state", ["failed", "skipped", "upstream_failed", None])
def test_the_verdict_names_tasks_that_did_not_succeed(state):
    results.check_run(["a", "b"], {"a": "success", "b": "success", "extra": "failed"}, [])
    with pytest.raises(FinalError, match=f"^b is {state}$"):
        results.check_run(["a", "b"], {"a": "success", "b": state} if state else {"a": "success"}, [])


def test_without_a_plan_the_verdict_fails():
    with pytest.raises(FinalError, match="no tasks are planned: the task preflight is failed"):
        results.check_run(None, {"preflight": "failed"}, [])


def test_the_verdict_names_what_may_still_run():
    with pytest.raises(FinalError, match=r"^end is failed; cluster j-1 may still run$"):
        results.check_run(["end"], {"end": "failed"}, ["cluster j-1 may still run"])
    with pytest.raises(MayStillRunError, match=r"^cluster j-1 may still run$"):
        results.check_run(["end"], {"end": "success"}, ["cluster j-1 may still run"])
