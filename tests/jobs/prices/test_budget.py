"""Budgets: what is refused before a cluster exists, and for how long training may go on."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.config import Config, resolve
from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join, local_path
from jobs.prices.book import ON_DEMAND, Price, PriceBook
from jobs.prices.budget import check_budget, seconds_for_training
from jobs.prices.estimate import Estimate
from jobs.prices.metering import ClusterUse, InstanceSpan

EAST = "us-east-1"
TYPES = ("m6i.xlarge", "m6a.xlarge", "m7i.xlarge")
PRICES = [
    *(Price(kind="ec2", region=EAST, item=name, usd=usd) for name, usd in zip(TYPES, (0.2, 0.3, 0.1), strict=True)),
    *(Price(kind="emr", region=EAST, item=name, usd=0.1) for name in TYPES),
    Price(kind="ebs", region=EAST, item="gp3", usd=0.0),
]
BOOK = PriceBook(PRICES)
NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)
HOUR = 3600.0


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake((tmp_path / "lake").as_uri())


def config(**settings: Any) -> Config:
    return resolve("file:///texts", "tiny", {key.replace("__", "."): value for key, value in settings.items()})


def expected(usd: float | None, **values: Any) -> Estimate:
    known = {"nights": 4, "steps": {"train": 3000.0, "generate": 30.0}, "other_seconds": 60.0, "instance_seconds": 9.0}
    return Estimate(1000, usd=usd, **{**(known if usd is not None else {"reason": "no earlier night"}), **values})


def check(run: Run, settings: Config, estimate: Estimate, book: PriceBook = BOOK) -> dict[str, Any] | None:
    return check_budget(run, settings, estimate, book, EAST, store.ENVIRONMENT, NOW.timestamp())


def spend(run: Run, usd_per_hour: float | None, *, start: datetime, hours: float = 1.0, ended: bool = True) -> None:
    """Write the record of a cluster with one instance."""
    began = start.timestamp()
    span = InstanceSpan("x.large", ON_DEMAND, began, began + hours * HOUR)
    rates = {} if usd_per_hour is None else {"x.large on demand": usd_per_hour}
    used = {"used": asdict(ClusterUse(EAST, 40.0, (span,), (), rates))} if ended else {"region": EAST}
    record = {"number": 1, "asked": start.isoformat(), "cluster_id": "j-1", "ended": ended, **used}
    store.write_json(join(run.clusters, "0001.json"), record)


def test_without_a_budget_nothing_is_checked_nor_written(lake: Lake) -> None:
    assert check(lake.run("r"), config(), expected(99.0), PriceBook(())) is None
    assert seconds_for_training(lake.run("r"), config()) is None


def test_a_budget_without_prices_is_refused_with_how_to_fill_them(lake: Lake) -> None:
    lacking = PriceBook([price for price in PRICES if price.item != "m7i.xlarge"])
    with pytest.raises(InputError) as refused:
        check(lake.run("r"), config(budget__usd=5), expected(1.0), lacking)
    assert str(refused.value) == (
        "budget.usd=5: the budget cannot be checked: EC2's price of m7i.xlarge on demand in us-east-1, EMR's price of"
        " m7i.xlarge in us-east-1 are not known; run nightjar prices to get prices from AWS, or add what is missing"
        " to the file that NIGHTJAR_PRICES names"
    )
    types = {f"cluster__{role}_instance_types": TYPES[:2] for role in ("primary", "core")}
    assert check(lake.run("r"), config(budget__usd=5, **types), expected(1.0), lacking) is not None


def test_a_run_that_is_expected_to_cost_more_is_refused_with_the_numbers(lake: Lake) -> None:
    with pytest.raises(InputError) as refused:
        check(lake.run("r"), config(budget__usd=5), expected(5.01))
    message = str(refused.value)
    assert message.startswith(
        "budget.usd: the run is expected to cost 5.01 USD, more than 5.00 (Estimate from 4 nights"
    )
    assert "train 3000 s" in message
    assert "train.max_tokens" in message
    assert "\n" not in message
    assert check(lake.run("r"), config(budget__usd=5), expected(4.99)) is not None
    assert check(lake.run("r"), config(budget__usd=5), expected(None)) is not None


def test_a_run_that_uses_a_model_is_held_to_its_budget_too(lake: Lake) -> None:
    uses = config(budget__usd=5, use__model="champion", use__task="evaluate")
    with pytest.raises(InputError, match=r"expected to cost 9\.00 USD.*raise budget\.usd, or give the run less text"):
        check(lake.run("r"), uses, expected(9.0, steps={"evaluate": 3000.0}))
    written = check(lake.run("r"), uses, expected(1.0, steps={"evaluate": 3000.0}))
    assert written is not None
    assert written["later_seconds"] is None  # no training has to leave time for other steps


def test_the_dearest_type_of_each_fleet_and_spot_nodes_on_demand_count(lake: Lake) -> None:
    settings = config(budget__usd=5, cluster__core_instances=3, cluster__task_instances=2)
    written = check(lake.run("r"), settings, expected(1.0))
    assert written == {"hourly_usd": pytest.approx(6 * 0.4), "month_spent_usd": None, "later_seconds": 60.0}


def test_the_month_of_a_pipeline_is_summed_from_its_first_moment_in_utc(lake: Lake) -> None:
    run, first = lake.run("r", "nightly"), datetime(2026, 11, 1, tzinfo=UTC)
    spend(lake.run("a", "nightly"), 2.0, start=first + timedelta(days=3), hours=2)
    spend(lake.run("b", "nightly"), 4.0, start=first - timedelta(minutes=30), hours=1)  # half of it
    spend(lake.run("c", "weekly"), 50.0, start=first)
    spend(run, 50.0, start=first + timedelta(days=9))  # an earlier try of the same run
    written = check(run, config(budget__usd_month=10), expected(3.9))
    assert written is not None
    assert written["month_spent_usd"] == pytest.approx(6.0)
    with pytest.raises(InputError) as refused:
        check(run, config(budget__usd_month=10), expected(4.1))
    assert str(refused.value) == (
        "budget.usd_month: runs of the pipeline nightly have cost 6.00 USD since 2026-11-01 (UTC), and this one is"
        " expected to cost 4.10, more than 10.00 together; raise budget.usd_month, wait for the next month, or"
        " shorten the run (train.max_tokens, train.max_seconds, train.epochs)"
    )
    with pytest.raises(InputError, match=r"have cost 6\.00 USD since 2026-11-01 \(UTC\), more than 6\.00 together"):
        check(run, config(budget__usd_month=6), expected(None))


def test_a_run_beside_counts_and_one_that_nobody_ended_counts_for_as_long_as_it_may_live(lake: Lake) -> None:
    run, beside = lake.run("r", "nightly"), lake.run("beside", "nightly")
    settings = config(
        cluster__core_instances=1, **{f"cluster__{x}_instance_types": TYPES[:1] for x in ("primary", "core")}
    )
    store.write_bytes(beside.config, settings.to_json().encode())
    spend(beside, None, start=NOW - timedelta(hours=2), ended=False)
    written = check(run, config(budget__usd_month=100), expected(None))
    assert written is not None
    assert written["month_spent_usd"] == pytest.approx(2 * 2 * 0.3)
    spend(beside, None, start=NOW - timedelta(days=20), ended=False)
    written = check(run, config(budget__usd_month=100), expected(None))
    assert written is not None
    assert written["month_spent_usd"] == pytest.approx(2 * 0.3 * (1 + 6 * 6))


def test_a_run_that_goes_on_over_the_end_of_a_month_counts_in_both(lake: Lake) -> None:
    run, beside = lake.run("r", "nightly"), lake.run("beside", "nightly")
    types = {f"cluster__{role}_instance_types": TYPES[:1] for role in ("primary", "core")}
    store.write_bytes(beside.config, config(cluster__core_instances=1, **types).to_json().encode())
    began = datetime(2026, 10, 31, 23, tzinfo=UTC)
    spend(beside, None, start=began, ended=False)
    record = local_path(join(beside.clusters, "0001.json"))
    os.utime(record, (began.timestamp(), began.timestamp()))
    written = check(run, config(budget__usd_month=100), expected(None))
    assert written is not None
    assert written["month_spent_usd"] == pytest.approx(2 * 0.3 * 6 * 6)


def test_a_month_with_an_unknown_bill_is_refused(lake: Lake) -> None:
    spend(lake.run("a", "nightly"), None, start=NOW)
    with pytest.raises(InputError, match=r"budget\.usd_month: the cost of this month's runs is not known: EC2's price"):
        check(lake.run("r", "nightly"), config(budget__usd_month=10), expected(1.0))


def budget(run: Run, hourly: float, month: float | None = None, later: float | None = None) -> None:
    store.write_json(run.budget, {"hourly_usd": hourly, "month_spent_usd": month, "later_seconds": later})


def left(run: Run, settings: Config) -> float | None:
    return seconds_for_training(run, settings, store.ENVIRONMENT, NOW.timestamp())


def test_training_gets_what_is_left_after_the_steps_before_and_for_those_after_it(lake: Lake) -> None:
    run = lake.run("r")
    assert left(run, config(budget__usd=3)) is None  # without Airflow, nothing costs
    spend(run, None, start=NOW - timedelta(hours=1), ended=False)
    budget(run, 1.0, later=900)
    assert left(run, config(budget__usd=3)) == pytest.approx(2 * HOUR - 900)
    budget(run, 1.0)
    assert left(run, config(budget__usd=3)) == pytest.approx(0.9 * 2 * HOUR)
    budget(run, 1.0, month=97.5)
    assert left(run, config(budget__usd=3, budget__usd_month=99)) == pytest.approx(0.9 * 0.5 * HOUR)
    assert left(run, config(budget__usd=0.5)) == pytest.approx(-0.5 * HOUR)


def test_clusters_that_were_lost_count_with_what_they_cost(lake: Lake) -> None:
    run = lake.run("r")
    spend(run, 0.25, start=NOW - timedelta(hours=9), hours=4)
    budget(run, 2.0, later=0)
    assert left(run, config(budget__usd=3)) == pytest.approx((3 - 1.0) / 2 * HOUR)


def test_a_budget_that_preflight_has_not_seen_is_refused(lake: Lake) -> None:
    run = lake.run("r")
    spend(run, None, start=NOW, ended=False)
    with pytest.raises(
        InputError, match=r"budget\.usd=3: this budget was set after preflight had run; clear the task preflight"
    ):
        left(run, config(budget__usd=3))
    budget(run, 1.0)
    with pytest.raises(InputError, match=r"budget\.usd_month=9: this budget was set after preflight had run"):
        left(run, config(budget__usd_month=9))


def test_a_damaged_budget_is_named(lake: Lake) -> None:
    store.write_bytes(lake.run("r").budget, b'{"hourly_usd": "x"}')
    with pytest.raises(DamagedError, match=r"budget\.json: .*clear the task preflight"):
        left(lake.run("r"), config(budget__usd=3))


@pytest.mark.parametrize("value", [0, -1, "much", "nan"])
@pytest.mark.parametrize("key", ["budget.usd", "budget.usd_month"])
def test_a_wrong_budget_is_one_line(key: str, value: object) -> None:
    with pytest.raises(InputError) as refused:
        resolve("file:///texts", "tiny", {key: value})
    assert str(refused.value).startswith(f"{key}: input should be ")
    assert "\n" not in str(refused.value)
