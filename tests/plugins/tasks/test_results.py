import pytest

from jobs.errors import NightjarError
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from nightjar.aws import store
from nightjar.tasks import results


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
    results.check_tasks(["a", "b"], {"a": "success", "b": "success", "extra": "failed"})
    with pytest.raises(NightjarError, match=f"^b is {state}$"):
        results.check_tasks(["a", "b"], {"a": "success", "b": state} if state else {"a": "success"})


def test_without_a_plan_the_verdict_fails():
    with pytest.raises(NightjarError, match="no tasks are planned: the task preflight is failed"):
        results.check_tasks(None, {"preflight": "failed"})
