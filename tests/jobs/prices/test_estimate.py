"""Estimates: how steps scale, which nights count, and how far real nights were from what was expected of them."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from jobs.config import Config, resolve
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join
from jobs.prices.book import ON_DEMAND, SPOT, Price, PriceBook
from jobs.prices.estimate import Estimate, fit, make_estimate
from jobs.prices.history import Night, read_nights
from jobs.prices.metering import ClusterUse, InstanceSpan, StepSpan

EAST = "us-east-1"
LIMIT = 10 * 3600.0
BOOK = PriceBook(
    [
        Price(kind="ebs", region=EAST, item="gp3", usd=0.0),
        *(Price(kind="ec2", region=EAST, item=name, usd=0.3) for name in ("m6i.xlarge", "m6a.xlarge", "m7i.xlarge")),
        *(Price(kind="emr", region=EAST, item=name, usd=0.06) for name in ("m6i.xlarge", "m6a.xlarge", "m7i.xlarge")),
    ]
)
RECORDED = sorted((Path(__file__).parents[2] / "data").glob("nights-*.json"))


def config(**settings: Any) -> Config:
    return resolve("file:///texts", "tiny", {key.replace("__", "."): value for key, value in settings.items()})


def night(corpus_bytes: float, settings: Config, *, seconds_per_step: float = 0.1, **steps: float) -> Night:
    """A night whose cluster of three nodes took 100 s to start, and 20 s to end."""
    windows = round(corpus_bytes / 1000)
    num_steps = settings.train.num_steps(windows, settings.windows.size)
    training = num_steps * seconds_per_step
    seconds = {"tokenize": 40.0, "windows": 20.0, "train": training + 15.0, "generate": 10.0, **steps}
    spans, at = [], 100.0
    for step, each in seconds.items():
        spans.append(StepSpan(step, at, at + each))
        at += each
    stats: dict[str, dict[str, Any]] = {step: {"error": None} for step in seconds}
    stats["train"] |= {"num_steps": num_steps, "training_seconds": training}
    stats["windows"]["num_train_windows"] = windows
    use = ClusterUse(EAST, 40.0, (InstanceSpan("m6i.xlarge", ON_DEMAND, 0.0, at + 20.0, 3),), tuple(spans))
    return Night(settings.model_dump(mode="json"), corpus_bytes, stats, use)


def estimate(settings: Config, corpus_bytes: int, nights: list[Night], prices: PriceBook = BOOK) -> Estimate:
    return make_estimate(settings, corpus_bytes, nights, prices, EAST, LIMIT)


PLAIN = {"train__max_tokens": None, "train__epochs": 1.0}


def test_the_same_night_again_takes_as_long() -> None:
    before = night(1e6, config(**PLAIN))
    made = estimate(config(**PLAIN), 1_000_000, [before])
    assert made.instance_seconds == pytest.approx(before.instance_seconds)
    assert made.steps == {step: pytest.approx(before.seconds(step)) for step in config().steps}
    assert made.usd == pytest.approx(before.instance_seconds * 0.36 / 3600, abs=1e-3)
    assert (made.nights, made.other_seconds, made.reason, made.at_most) == (1, 120.0, None, False)


def test_training_scales_with_its_steps_and_not_with_its_start() -> None:
    nights = [night(1e6, config(**PLAIN))]
    before = nights[0].seconds("train") or 0.0
    longer = estimate(config(**{**PLAIN, "train__epochs": 3.0}), 1_000_000, nights).steps["train"]
    assert longer == pytest.approx(15 + 3 * (before - 15), rel=0.05)
    larger = estimate(config(**PLAIN), 2_000_000, nights).steps["train"]
    assert larger == pytest.approx(15 + 2 * (before - 15), rel=0.05)
    fewer = estimate(config(**{**PLAIN, "train__max_tokens": 32 * 64 * 10}), 1_000_000, nights).steps["train"]
    assert fewer == pytest.approx(15 + 10 * 0.1)
    limited = estimate(config(**PLAIN, train__max_seconds=2), 9_000_000, nights).steps["train"]
    assert limited == pytest.approx(15 + 2)


def test_a_night_of_little_new_text_takes_fewer_steps() -> None:
    nights = [night(1e6, config(**PLAIN))]
    before = nights[0].seconds("train") or 0.0
    settings = config(**PLAIN, train__epochs_of_new_text=2)
    shorter = settings.model_copy(update={"train": settings.train.with_epochs_for(0.1)})
    assert estimate(shorter, 1_000_000, nights).steps["train"] == pytest.approx(15 + 0.2 * (before - 15), rel=0.1)
    for share in (None, 0.0, 0.7):
        assert settings.train.with_epochs_for(share).epochs == 1.0


def test_a_text_of_another_size_takes_a_fixed_time_and_its_share() -> None:
    nights = [night(size, config(**PLAIN), tokenize=20 + size / 1e5) for size in (1e6, 2e6, 1.5e6)]
    assert estimate(config(**PLAIN), 4_000_000, nights).steps["tokenize"] == pytest.approx(60.0)
    assert estimate(config(**PLAIN), 500_000, nights).steps["tokenize"] == pytest.approx(25.0)


def test_an_outlier_among_the_nights_does_little_harm() -> None:
    sizes = (1e6, 1.2e6, 1.4e6, 1.6e6, 1.8e6)
    nights = [night(size, config(**PLAIN), tokenize=(20 + size / 1e5) * (9 if size == 1.4e6 else 1)) for size in sizes]
    assert estimate(config(**PLAIN), 2_000_000, nights).steps["tokenize"] == pytest.approx(40.0, rel=0.1)


def test_from_samples_of_one_size_the_estimate_errs_upwards() -> None:
    seconds = fit([(100.0, 10.0), (101.0, 12.0)])
    assert seconds(50.0) == pytest.approx(11.0)
    assert seconds(201.0) == pytest.approx(22.0)


def test_a_fit_never_falls_with_more_work_nor_below_nothing() -> None:
    assert fit([(1.0, 9.0), (2.0, 3.0)])(100.0) == pytest.approx(6.0)
    assert fit([(1.0, 0.1), (2.0, 9.0)])(0.0) >= 0


def test_texts_to_write_count() -> None:
    nights = [night(1e6, config(**PLAIN, generate__num_samples=count), generate=4 + count) for count in (2, 6)]
    made = estimate(config(**PLAIN, generate__num_samples=10), 1_000_000, nights)
    assert made.steps["generate"] == pytest.approx(14.0)


@pytest.mark.parametrize(
    ("changed", "lacking"),
    [
        ({"cluster__core_instances": 4}, "tokenize"),
        ({"cluster__core_instance_types": ("m7i.xlarge",)}, "tokenize"),
        ({"model__num_layers": 3}, "train"),
        ({"train__batch_size": 64}, "train"),
        ({"tokenize__vocab_size": 300}, "tokenize"),
        ({"windows__size": 32}, "windows"),
    ],
)
def test_a_night_of_another_cluster_or_model_does_not_count(changed: dict[str, Any], lacking: str) -> None:
    made = estimate(config(**PLAIN, **changed), 1_000_000, [night(1e6, config(**PLAIN))])
    assert (made.instance_seconds, made.usd) == (None, None)
    assert made.reason == f"no earlier night has the same cluster and settings of {lacking}"


@pytest.mark.parametrize("changed", [{"train__seed": 7}, {"train__learning_rate": 1.0}, {"generate__seed": 3}])
def test_settings_that_change_no_duration_do_not_matter(changed: dict[str, Any]) -> None:
    made = estimate(config(**PLAIN, **changed), 1_000_000, [night(1e6, config(**PLAIN))])
    assert made.instance_seconds is not None


def test_without_nights_the_limits_give_a_bound() -> None:
    made = estimate(config(), 1_000_000, [])
    assert (made.instance_seconds, made.reason) == (None, "no earlier night")
    assert (made.bound_instance_seconds, made.bound_usd) == (3 * LIMIT, pytest.approx(3 * 10 * 0.36))
    assert str(made) == "Estimate: unknown (no earlier night); at most 30.00 instance hours, 10.80 USD by its limits"
    local = str(replace(made, is_embedded=True))
    assert local == f"{made}; the prices are those of AWS, the embedded EMR costs nothing"
    unpriced = replace(made, is_embedded=True, bound_usd=None)
    assert str(unpriced).endswith("at most 30.00 instance hours by its limits; the embedded EMR costs nothing")


def test_without_prices_the_time_is_known_and_the_cost_is_not() -> None:
    made = estimate(config(**PLAIN), 1_000_000, [night(1e6, config(**PLAIN))], PriceBook(()))
    assert made.instance_seconds is not None
    assert (made.usd, made.bound_usd) == (None, None)
    assert "run nightjar prices" in str(made)


def test_spot_nodes_of_the_last_night_have_their_price() -> None:
    before = night(1e6, config(**PLAIN))
    spans = (InstanceSpan("m6i.xlarge", ON_DEMAND, 0, 1000, 2), InstanceSpan("m6i.xlarge", SPOT, 0, 1000, 1))
    before = replace(before, use=replace(before.use, instances=spans))
    bound = estimate(config(**PLAIN), 1_000_000, [before])
    assert bound.at_most
    known = PriceBook([*BOOK, Price(kind="ec2", region=EAST, item="m6i.xlarge", market=SPOT, usd=0.0)])
    made = estimate(config(**PLAIN), 1_000_000, [before], known)
    assert made.usd == pytest.approx((bound.usd or 0) * (0.36 * 2 + 0.06) / (0.36 * 3), rel=1e-3)
    assert not made.at_most


def leave(run: Run, made: Night, **changes: Any) -> None:
    """Write the files of a night."""
    earlier = {**made.config["tokenize"]}
    del earlier["split_bytes"]  # a setting that a later version has
    store.write_json(run.config, {**made.config, "tokenize": earlier})
    store.write_json(join(run.stats, "stats.json"), {"steps": {**made.stats, **changes}})
    store.write_json(run.estimate, {"corpus_bytes": made.corpus_bytes})
    used = TypeAdapter(ClusterUse).dump_python(made.use, mode="json")
    record = {"number": 1, "asked": "2026-11-26T02:00:00+00:00", "cluster_id": "j-1", "ended": True, "used": used}
    store.write_json(join(run.clusters, "0001.json"), record)


def test_nights_are_the_finished_runs_of_the_same_pipeline(tmp_path: Path) -> None:
    lake = Lake((tmp_path / "lake").as_uri())
    made = night(1e6, config())
    for name in ("scheduled__2026-11-02", "manual__2026-11-01", "now", "failed"):
        leave(lake.run(name, "nightly"), made)
    leave(lake.run("other", "weekly"), made)
    leave(lake.run("failed", "nightly"), made, train={"error": "out of memory"})
    leave(lake.run("twice", "nightly"), made)
    store.write_json(join(lake.run("twice", "nightly").clusters, "0002.json"), {"cluster_id": "j-2", "ended": True})
    leave(lake.run("started", "nightly"), replace(made, stats={"tokenize": {"error": None}}))
    store.write_bytes(join(lake.run("damaged", "nightly").stats, "stats.json"), b"{")
    store.write_bytes(lake.run("damaged", "nightly").config, b"{}")
    assert read_nights(lake.run("now", "nightly")) == [made, made]
    assert read_nights(lake.run("now", "new")) == []


def test_runs_that_use_a_model_are_nights_of_their_own(tmp_path: Path) -> None:
    lake, use = Lake((tmp_path / "lake").as_uri()), {"use__model": "champion"}
    generates, evaluates = config(**use), config(**use, use__task="evaluate")
    made = {}
    for number, (settings, size) in enumerate([(generates, 0.0), (evaluates, 2e6)]):
        [step] = settings.steps
        whole = night(1e6, settings, evaluate=50.0)
        spans = tuple(span for span in whole.use.steps if span.name == step)
        made[step] = replace(
            whole, corpus_bytes=size, stats={step: {"error": None}}, use=replace(whole.use, steps=spans)
        )
        leave(lake.run(f"manual__{number}", "nightly"), made[step])
    leave(lake.run("manual__2", "nightly"), replace(made["evaluate"], corpus_bytes=0.0, stats={"tokenize": {}}))
    nights = read_nights(lake.run("now", "nightly"))
    assert nights == [made["generate"], made["evaluate"]]
    assert estimate(generates, 0, nights).steps == {"generate": 10.0}
    assert estimate(evaluates, 4_000_000, nights).steps == {"evaluate": 100.0}
    others = [night(1e6, config(**PLAIN))]
    assert estimate(generates, 0, others).reason == "no earlier night has the same cluster and settings of generate"
    assert (
        estimate(config(**PLAIN), 1_000_000, [*others, *nights]).steps
        == estimate(config(**PLAIN), 1_000_000, others).steps
    )


def test_a_step_that_found_its_result_tells_nothing_of_its_duration() -> None:
    before = night(1e6, config(**PLAIN))
    reused = replace(before, stats={**before.stats, "tokenize": {"error": None, "reused": True}})
    assert reused.seconds("tokenize") is None
    made = estimate(config(**PLAIN), 1_000_000, [before, reused])
    assert made.steps["tokenize"] == pytest.approx(40.0)


def recorded(file: Path) -> list[tuple[Config, Night]]:
    """Nights of real steps, see `tests.support.recorded_nights`."""
    found = []
    for each in json.loads(file.read_text("utf-8")):
        use = TypeAdapter(ClusterUse).validate_python(each["used"])
        settings = Config.model_validate(each["config"])
        made = Night(settings.model_dump(mode="json"), each["corpus_bytes"], each["steps"], use)
        found.append((settings, made))
    return found


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.name)
def test_recorded_nights_are_predicted_from_the_nights_before_them(file: Path) -> None:
    nights = recorded(file)
    assert len(nights) >= 10
    errors = []
    for number in range(1, len(nights)):
        settings, actual = nights[number]
        before = [each for _, each in nights[:number]]
        expected = estimate(settings, round(actual.corpus_bytes), before).instance_seconds
        assert expected is not None
        errors.append(abs(expected - actual.instance_seconds) / actual.instance_seconds)
    assert statistics.median(errors) <= 0.15, errors


@pytest.mark.parametrize("stats", ['{"valid_loss": 4.0}', '{"steps": {}}', '{"steps": 3}', "[]", "{"])
def test_a_night_whose_statistics_are_not_ours_is_left_out(tmp_path: Path, stats: str) -> None:
    """It must not keep later nights from starting."""
    lake = Lake(tmp_path.as_uri())
    run = lake.run("before", "nightly")
    leave(run, night(1e6, config()))
    store.write_bytes(join(run.stats, "stats.json"), stats.encode())
    assert read_nights(lake.run("now", "nightly")) == []
