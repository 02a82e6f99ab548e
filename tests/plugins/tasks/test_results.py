"""The manifests and statistics of a run, on a local disk and on S3, and the verdict."""

import json
import uuid
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from types import MappingProxyType, SimpleNamespace

import pytest
from hypothesis import given, settings

from jobs.errors import DamagedError
from jobs.lake.files import FileInfo
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import Manifest
from jobs.lake.uri import join, local_path, readable, to_uri
from jobs.prices.metering import ClusterUse, InstanceSpan, StepSpan
from jobs.results.report import read_report
from jobs.results.summary import Status
from nightjar.aws import store
from nightjar.errors import FinalError, MayStillRunError
from nightjar.tasks import bill, results
from nightjar.tasks.results import verify_step
from tests.support import airflow
from tests.support.hostile import NAMES

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
        "train": run.train, "generate": run.generate, "score": run.score,
        "evaluate": run.evaluation,
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
        DamagedError, match=rf"datasets\.json: has no dataset '{STEPS[step]}', though the step {step} has ended"
    ):
        verify_step(step, run, store())


def test_a_step_counts_as_finished_only_with_the_model_that_its_run_uses(run):
    entry = store().write_file(run.evaluation, "documents.jsonl", b"{}")
    store().publish_manifest(run.evaluation, Manifest("losses", "m", (entry,), {}, {"model": "m"}))
    assert results.find_finished("evaluate", run, store()) is None  # nothing says which model the run uses
    store().write_json(run.used, {"name": "champion", "uri": "file:///m", "fingerprint": "m"})
    assert results.find_finished("evaluate", run, store()).inputs == {"model": "m"}
    store().write_json(run.used, {"name": "champion", "uri": "file:///m", "fingerprint": "another"})
    assert results.find_finished("evaluate", run, store()) is None


def test_statistics_are_copied_and_summarized(lake_uri, tmp_path):
    run = Lake(lake_uri).run("one:two")
    stats = {"valid_loss": 4.0, "seconds": {"train": 12.5}, "steps": {"train": {"loss": [1] * 1000}}}
    store().write_json(join(run.stats, "stats.json"), stats)
    store().write_bytes(join(run.stats, "plots/loss.png"), b"png")
    summary = results.pull_stats(run, tmp_path / "here")
    assert summary == {
        "run_id": "one:two",
        "stats_dir": str(tmp_path / "here" / "lab" / "local" / "one=3Atwo"),
        "valid_loss": 4.0,
        "seconds": {"train": 12.5},
    }
    assert (tmp_path / "here" / "lab" / "local" / "one=3Atwo" / "plots" / "loss.png").read_bytes() == b"png"


def test_the_summary_says_that_a_budget_has_ended_the_training(lake_uri, tmp_path):
    run = Lake(lake_uri).run("one")
    for ended in (True, False):
        store().write_json(join(run.stats, "stats.json"), {"steps": {"train": {"stopped_by_budget": ended}}})
        assert results.pull_stats(run, tmp_path).get("stopped_by_budget", False) is ended


def test_a_run_that_failed_early_has_no_statistics(lake_uri, tmp_path):
    summary = results.pull_stats(Lake(lake_uri).run("one"), tmp_path)
    assert summary == {"run_id": "one", "stats_dir": str(tmp_path / "lab" / "local" / "one")}


def test_statistics_stay_in_their_folder(aws, tmp_path):
    """Keys of S3 are any text; 300 hostile ones, each in one listing with a harmless one."""
    lake = Lake(f"s3://{airflow.BUCKET}/hostile-{uuid.uuid4().hex[:8]}")
    run, stats_dir = lake.run("r", "default"), tmp_path / "deep" / "er" / "stats"

    @given(NAMES)
    @settings(max_examples=300)
    def pull(name):
        uris = [f"{run.stats}/{name}", join(run.stats, "fine.txt")]
        found = SimpleNamespace(list_files=lambda _: [FileInfo(uri, 1, 0.0) for uri in uris], copy=copy)
        with pytest.MonkeyPatch.context() as patch, suppress(DamagedError, OSError):
            patch.setattr(results.aws, "store", lambda: found)
            results.pull_stats(run, stats_dir)

    def copy(uri, target_uri):
        local_path(target_uri).parent.mkdir(parents=True, exist_ok=True)
        local_path(target_uri).write_bytes(b"x")

    pull()
    folder = stats_dir / "lab" / "default" / "r"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert folder / "fine.txt" in written
    assert all(path.is_relative_to(folder) for path in written)


def test_an_object_that_leads_out_is_refused_and_the_rest_is_copied(aws, tmp_path):
    lake = Lake(f"s3://{airflow.BUCKET}/hostile-{uuid.uuid4().hex[:8]}")
    run = lake.run("r", "default")
    store().write_bytes(f"{run.stats}/../../../../../x", b"hostile")
    store().write_json(join(run.stats, "stats.json"), {"valid_loss": 4.0})
    with pytest.raises(DamagedError, match="is not a valid name for a file in this folder; remove this name"):
        results.pull_stats(run, tmp_path / "a" / "b")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"report.html", "stats.json"}


def test_a_link_in_a_local_lake_that_leads_out_is_not_followed(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("r")
    store().write_json(join(run.stats, "stats.json"), {})
    (tmp_path / "secret").write_text("of Airflow's host")
    (local_path(run.stats) / "curves.csv").symlink_to(tmp_path / "secret")
    with pytest.raises(DamagedError, match="is a link that leads out of"):
        results.pull_stats(run, tmp_path / "stats")
    assert not list((tmp_path / "stats").rglob("curves.csv"))


@pytest.mark.parametrize("content", [b'{"valid_loss": NaN, "seconds": {"train": Infinity}}', b'{"valid_loss": null}'])
def test_a_summary_for_airflow_has_no_number_that_json_lacks(lake_uri, tmp_path, content):
    run = Lake(lake_uri).run("r")
    store().write_bytes(join(run.stats, "stats.json"), content)
    summary = results.pull_stats(run, tmp_path)
    json.dumps(summary, allow_nan=False)
    assert summary["valid_loss"] is None


def test_what_a_database_refuses_is_replaced():
    value = {"a\0": ["\ud800 é", float("nan"), {"b": float("-inf")}], "c": 1.5}
    assert results.to_storable_json(value) == {"a\ufffd": ["? é", None, {"b": None}], "c": 1.5}


@pytest.mark.parametrize("state", ["failed", "skipped", "upstream_failed", None])
def test_the_verdict_names_tasks_that_did_not_succeed(state):
    results.check_run(["a", "b"], {"a": "success", "b": "success", "extra": "failed"}, [])
    with pytest.raises(FinalError, match=f"^b is {state}$"):
        results.check_run(["a", "b"], {"a": "success", "b": state} if state else {"a": "success"}, [])


def test_the_verdict_names_commands_to_go_on_with(run, caplog):
    caplog.set_level("INFO")
    results.log_next(run, store(), "nightjar")
    place = f'--lake "{readable(run.lake_uri)}" --model {run.folder}'
    assert f'nightjar sample {place} --prompt "The man"' in caplog.text
    assert f"nightjar export {place} --format gguf --output model.gguf" in caplog.text
    caplog.clear()
    store().write_json(run.used, {"name": "champion", "uri": join(run.lake_uri, "models/a"), "fingerprint": "a"})
    results.log_next(run, store(), "docker compose exec emr nightjar")
    lake = readable(run.lake_uri)
    assert f'docker compose exec emr nightjar runs show {run.folder} --lake "{lake}"' in caplog.text
    model = readable(join(run.lake_uri, "models/a"))
    assert f'emr nightjar sample --lake "{lake}" --model "{model}" --prompt "The man"' in caplog.text


def test_without_a_plan_the_verdict_fails():
    with pytest.raises(FinalError, match="no tasks are planned: the task preflight is failed"):
        results.check_run(None, {"preflight": "failed"}, [])


def test_the_verdict_names_what_may_still_run():
    with pytest.raises(FinalError, match=r"^end is failed; cluster j-1 may still run$"):
        results.check_run(["end"], {"end": "failed"}, ["cluster j-1 may still run"])
    with pytest.raises(MayStillRunError, match=r"^cluster j-1 may still run$"):
        results.check_run(["end"], {"end": "success"}, ["cluster j-1 may still run"])


def used_cluster(run, *, ended, rates=MappingProxyType({"m6i.xlarge on demand": 0.25}), is_embedded=False):
    """Write the record of a cluster that ran for an hour, as the end of the clusters does."""
    used = ClusterUse(
        "eu-west-1",
        40.0,
        (InstanceSpan("m6i.xlarge", "on demand", 0.0, 3600.0, 3),),
        (StepSpan("train", 600.0, 3000.0),),
        dict(rates),
        is_embedded=is_embedded,
    )
    seconds = {"m6i.xlarge on demand": 10_800.0}
    known = {"used": asdict(used), "instance_seconds": seconds} if ended else {}
    record = {"number": 1, "asked": datetime.now(UTC).isoformat(), "cluster_id": "j-1", "ended": ended, **known}
    store().write_json(join(run.clusters, "0001.json"), record)


def test_the_bill_is_in_the_statistics_in_the_report_and_in_the_summary_of_pull_stats(run, tmp_path):
    store().write_json(join(run.stats, "stats.json"), {"valid_loss": 1.5, "steps": {"train": {"seconds": 9.0}}})
    used_cluster(run, ended=False)
    so_far = results.pull_stats(run, tmp_path)
    assert so_far["instance_seconds"] < 600
    assert so_far["cost_usd"] is None
    used_cluster(run, ended=True)
    bill.settle(run, store(), tmp_path)
    for folder in (run.stats, join(to_uri(str(tmp_path)), run.folder)):
        stats = store().read_json(join(folder, "stats.json"))
        assert (stats["instance_seconds"], stats["cost_usd"], stats["valid_loss"]) == (10_800.0, 0.75, 1.5)
        assert stats["bill"]["steps"]["train"] == {"instance_seconds": 7200.0, "usd": 0.5}
        assert stats["bill"]["is_final"]
        page = store().read_bytes(join(folder, "report.html")).decode()
        assert "0.75" in page
        assert "<td>2:00:00 h<td>0.5 USD" in page
    assert results.pull_stats(run, tmp_path)["cost_usd"] == 0.75


def test_the_report_compares_the_estimate_with_what_the_run_took(run, tmp_path):
    store().write_json(join(run.stats, "stats.json"), {"valid_loss": 1.5, "steps": {"train": {"seconds": 9.0}}})
    used_cluster(run, ended=True)
    store().write_json(run.estimate, {"instance_seconds": 10_000.0, "usd": 0.69, "nights": 8, "reason": None})
    report = read_report(run, store())
    tiles = {tile.label: tile for tile in report.headline()}
    assert tiles["expected"].text == "2:46:40 h (+8% in fact)"
    running = replace(report, summary=replace(report.summary, status=Status.RUNNING))
    assert {tile.label: tile.text for tile in running.headline()}["expected"] == "2:46:40 h"
    meaning = "Instance time that was expected before the run, from 8 earlier nights."
    assert tiles["expected"].meaning == f"{meaning} Its cost was expected to be 0.69 USD."
    store().write_json(run.estimate, {"instance_seconds": 10_000.0, "usd": None, "nights": 1, "reason": "no price"})
    tiles = {tile.label: tile for tile in read_report(run, store()).headline()}
    assert tiles["expected"].meaning == "Instance time that was expected before the run, from 1 earlier night."
    store().write_json(run.estimate, {"instance_seconds": None, "reason": "no earlier night"})
    tiles = {tile.label: tile for tile in read_report(run, store()).headline()}
    assert (tiles["expected"].text, tiles["expected"].meaning) == ("not known", "no earlier night.")


@pytest.mark.parametrize("rates", [{"m6i.xlarge on demand": 0.25}, {}])
def test_the_embedded_emr_charges_nothing(run, tmp_path, caplog, rates):
    store().write_json(join(run.stats, "stats.json"), {"valid_loss": 1.5, "steps": {"train": {"seconds": 9.0}}})
    used_cluster(run, ended=True, rates=rates, is_embedded=True)
    store().write_json(run.estimate, {"instance_seconds": 10_000.0, "usd": 0.69, "nights": 8, "reason": None})
    caplog.set_level("INFO")
    bill.settle(run, store(), tmp_path)
    assert "Bill: 10,800 instance seconds, nothing on the embedded EMR" in caplog.text
    stats = store().read_json(join(run.stats, "stats.json"))
    assert (stats["cost_usd"], stats["bill"]["is_embedded"], stats["bill"]["problem"]) == (0.0, True, None)
    tiles = {tile.label: tile for tile in read_report(run, store()).headline()}
    on_aws = f"3:00:00 h m6i.xlarge on demand{', 0.75 USD' if rates else ''}"
    note = f"nothing on the embedded EMR; on AWS it would be {on_aws}"
    assert (tiles["cost"].text, tiles["cost"].meaning) == ("nothing", f"Cost of these instances: {note}.")
    for tile in tiles.values():
        assert "AWS charges" not in tile.meaning
        assert "nightjar prices" not in tile.meaning
    page = store().read_bytes(run.report).decode()
    assert "<td>2:00:00 h<td>0.00 USD" in page
    assert f"Cost: {note}." in page


def test_without_a_cluster_there_is_no_bill(run, tmp_path):
    store().write_json(join(run.stats, "stats.json"), {"valid_loss": 1.5})
    bill.settle(run, store(), tmp_path)
    assert store().read_json(join(run.stats, "stats.json")) == {"valid_loss": 1.5}
    assert "cost_usd" not in results.pull_stats(run, tmp_path)


def test_a_bill_that_cannot_be_written_does_not_fail_the_task_that_ends_clusters(run, tmp_path, caplog):
    used_cluster(run, ended=True)
    store().write_bytes(join(run.stats, "stats.json"), b"{")
    bill.settle(run, store(), tmp_path)
    assert "the bill could not be written" in caplog.text
