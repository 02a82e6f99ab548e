"""The bill: instance seconds and cost by step and by type, of replaced clusters and of spot nodes too."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from jobs.config import Config
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join
from jobs.prices.bill import WITHOUT_STEP, Bill, Charge, make_bill
from jobs.prices.book import SPOT, Price, PriceBook
from jobs.prices.metering import ClusterUse, InstanceSpan, StepSpan, read_cluster_uses

EAST = "us-east-1"
BOOK = PriceBook(
    [
        Price(kind="ec2", region=EAST, item="m6i.xlarge", usd=0.30),
        Price(kind="emr", region=EAST, item="m6i.xlarge", usd=0.06),
        Price(kind="ec2", region=EAST, item="g5.xlarge", usd=1.0),
        Price(kind="emr", region=EAST, item="g5.xlarge", usd=0.2),
        Price(kind="ec2", region=EAST, item="g5.xlarge", usd=0.52, market=SPOT),
        Price(kind="ebs", region=EAST, item="gp3", usd=0.073),
    ]
)
CONFIG = Config.model_validate({"corpus": "file:///texts"}).model_dump(mode="json")


def bill(*uses: ClusterUse, book: PriceBook = BOOK) -> Bill:
    return make_bill(uses, lambda: book)


def use(*spans: InstanceSpan, steps: tuple[StepSpan, ...] = (), **values: Any) -> ClusterUse:
    return ClusterUse(EAST, 0.0, spans, steps, **values)


def on_demand(started: float, ended: float, count: int = 1) -> InstanceSpan:
    return InstanceSpan("m6i.xlarge", "on demand", started, ended, count)


def test_a_bill_by_step_of_a_cluster_that_was_replaced_and_of_spot_nodes_that_came_late() -> None:
    """Three nodes for an hour, lost in train; then two for two hours, with two spot nodes at twice the price."""
    first = use(on_demand(0, 3600, 3), steps=(StepSpan("tokenize", 600, 1200), StepSpan("train", 1200, 3600)))
    second = use(
        on_demand(4000, 11_200, 2),
        InstanceSpan("g5.xlarge", SPOT, 5000, 11_000, 2),
        steps=(StepSpan("train", 4600, 10_600), StepSpan("generate", 10_600, 10_900)),
    )
    made = bill(first, second)
    train = 3 * 2400 + 2 * 6000
    assert made.steps["tokenize"] == Charge(1800.0, pytest.approx(0.18))
    assert made.steps["train"] == Charge(train + 2 * 5600.0, pytest.approx(train * 1e-4 + 11_200 * 2e-4))
    assert made.steps["generate"] == Charge(1200.0, pytest.approx(600 * 1e-4 + 600 * 2e-4))
    whole = 3 * 3600 + 2 * 7200
    assert made.instances["m6i.xlarge on demand"] == Charge(whole, pytest.approx(whole * 1e-4))
    assert made.instances["g5.xlarge spot"] == Charge(12_000.0, pytest.approx(2.4))
    assert made.total == Charge(whole + 12_000.0, pytest.approx(whole * 1e-4 + 2.4))
    for name in ("seconds", "usd"):
        parts = [getattr(charge, name) for charge in made.steps.values()]
        assert sum(parts) == pytest.approx(getattr(made.total, name), abs=1e-5)
    assert set(made.steps) == {"tokenize", "train", "generate", WITHOUT_STEP}
    assert (made.at_most, made.is_final, made.problem) == (False, True, None)


def test_a_short_instance_is_charged_for_a_minute() -> None:
    made = bill(use(on_demand(100, 110, 2), steps=(StepSpan("tokenize", 100, 105),)))
    assert made.total == Charge(20.0, pytest.approx(2 * 60 * 1e-4))
    assert made.steps["tokenize"] == Charge(10.0, pytest.approx(10 * 1e-4))


def test_without_a_price_the_cost_is_unknown_and_the_time_is_not() -> None:
    made = bill(use(on_demand(0, 3600), InstanceSpan("m5.large", SPOT, 0, 60)))
    assert made.total == Charge(3660.0, None)
    assert {charge.usd for charge in made.instances.values()} == {None}
    assert made.problem is not None
    assert made.problem.startswith(
        "EC2's price of m5.large on demand in us-east-1, EMR's price of m5.large in us-east-1 are"
    )
    assert made.to_json()["problem"] == made.problem


def test_the_cost_of_a_spot_node_without_a_spot_price_is_a_bound() -> None:
    made = bill(use(InstanceSpan("m6i.xlarge", SPOT, 0, 3600)))
    assert (made.total.usd, made.at_most) == (pytest.approx(0.36), True)


def test_the_rates_of_the_record_count_more_than_those_of_today() -> None:
    def never() -> PriceBook:
        raise AssertionError("asked for prices")

    recorded = use(on_demand(0, 3600), rates={"m6i.xlarge on demand": 0.5}, bounds=("m6i.xlarge on demand",))
    made = make_bill([recorded], never)
    assert (made.total.usd, made.at_most) == (pytest.approx(0.5), True)


def write(run: Run, number: int, **values: Any) -> None:
    record = {"number": number, "asked": "2026-11-26T02:00:00+00:00", "cluster_id": f"j-{number}", **values}
    store.write_json(join(run.clusters, f"{number:04d}.json"), record)


@pytest.fixture
def run(tmp_path) -> Run:
    return Lake((tmp_path / "lake").as_uri()).run("one", "nightly")


def test_the_record_of_clusters_gives_the_use(run: Run) -> None:
    ended = use(on_demand(0, 3600), steps=(StepSpan("train", 5, 10),), rates={"m6i.xlarge on demand": 0.5})
    write(run, 1, ended=True, used=asdict(ended), instance_seconds={"m6i.xlarge on demand": 3600.0})
    write(run, 2, ended=True, instance_seconds={"g5.xlarge spot": 60.0, "bad": "x"})
    write(run, 3, borrowed=True)
    write(run, 4, ended=True)
    write(run, 5, region=EAST)
    write(run, 6, used={"region": 3})
    store.write_bytes(join(run.clusters, "0007.json"), b"{")
    asked = 1_795_658_400.0  # 02:00
    first, second, silent, active = read_cluster_uses(run, CONFIG, now=asked + 600)
    assert first == ended
    assert second.instances == (InstanceSpan("g5.xlarge", SPOT, 0.0, 60.0),)
    assert not silent.is_known
    assert [(span.count, span.started, span.ended) for span in active.instances] == [
        (1, asked, asked + 600),
        (2, asked, asked + 600),
    ]
    assert (active.region, active.disk_gb, active.is_final) == (EAST, 40.0, False)
    assert len(read_cluster_uses(run, CONFIG, is_running=False)) == 3


def test_a_bill_is_of_the_embedded_emr_if_all_its_clusters_were(run: Run) -> None:
    write(run, 1, region=EAST, is_embedded=True)
    write(run, 2, ended=True, used=asdict(use(on_demand(0, 3600), is_embedded=True)))
    made = bill(*read_cluster_uses(run, CONFIG))
    assert (made.is_embedded, made.cost_usd) == (True, 0.0)
    assert made.total.usd is not None
    write(run, 3, ended=True, used=asdict(use(on_demand(0, 3600))))
    mixed = bill(*read_cluster_uses(run, CONFIG))
    assert (mixed.is_embedded, mixed.cost_usd) == (False, mixed.total.usd)
    assert not bill().is_embedded


def test_a_cluster_whose_use_is_not_known_makes_the_cost_unknown(run: Run) -> None:
    write(run, 1, ended=True)
    write(run, 2, ended=True, used=asdict(use(on_demand(0, 3600))))
    made = bill(*read_cluster_uses(run, CONFIG))
    assert made.total == Charge(3600.0, None)
    expected = "EMR did not report how long the instances of 1 cluster ran; look up the time in EMR's console"
    assert made.problem == expected
