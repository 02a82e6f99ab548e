"""The check of what a finished step left, on a local disk and on S3."""

import pytest

from jobs.errors import DamagedError
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import Manifest
from jobs.lake.uri import join
from nightjar.aws import store
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
