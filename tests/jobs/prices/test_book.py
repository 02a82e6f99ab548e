"""Prices: what is known, what a user's file adds and overrides, and what is refused."""

from __future__ import annotations

from datetime import date
from importlib.resources import files
from pathlib import Path

import pytest

from jobs.errors import InputError
from jobs.prices.book import (
    HOURS_OF_MONTH,
    SPOT,
    Price,
    PriceBook,
    explain_missing,
    load_prices,
    parse_prices,
    to_toml,
)

EAST = "us-east-1"


def book(*prices: Price) -> PriceBook:
    return PriceBook(prices)


def price(kind: str, item: str, usd: float | None, market: str = "on demand") -> Price:
    return Price(kind=kind, region=EAST, item=item, usd=usd, market=market)


FULL = (price("ec2", "m6i.xlarge", 0.2), price("emr", "m6i.xlarge", 0.05), price("ebs", "gp3", 0.073))


def test_a_rate_is_the_sum_of_ec2_emr_and_the_disk() -> None:
    rate = book(*FULL).rate("m6i.xlarge", "on demand", EAST, disk_gb=40)
    assert rate.usd == pytest.approx(0.2 + 0.05 + 40 * 0.073 / HOURS_OF_MONTH)
    assert (rate.at_most, rate.missing) == (False, ())


def test_a_spot_price_that_is_not_known_is_bounded_by_the_one_on_demand() -> None:
    bound = book(*FULL).rate("m6i.xlarge", SPOT, EAST, 0)
    assert (bound.usd, bound.at_most) == (pytest.approx(0.25), True)
    known = book(*FULL, price("ec2", "m6i.xlarge", 0.07, SPOT)).rate("m6i.xlarge", SPOT, EAST, 0)
    assert (known.usd, known.at_most) == (pytest.approx(0.12), False)


@pytest.mark.parametrize("lacking", range(3))
def test_without_one_part_nothing_is_computed(lacking: int) -> None:
    rate = book(*(each for number, each in enumerate(FULL) if number != lacking)).rate("m6i.xlarge", SPOT, EAST, 40)
    assert rate.usd is None
    assert len(rate.missing) == 1
    other_region = book(*FULL).rate("m6i.xlarge", "on demand", "eu-west-1", 40)
    assert (other_region.usd, len(other_region.missing)) == (None, 3)


def test_what_is_missing_is_one_line_with_how_to_fill_it() -> None:
    missing = book().rate("m6i.xlarge", "on demand", EAST, 40).missing
    assert explain_missing([*missing, *missing]) == (
        "EC2's price of m6i.xlarge on demand in us-east-1, EMR's price of m6i.xlarge in us-east-1, the price of a disk"
        " of gp3 in us-east-1 are not known; run nightjar prices to get prices from AWS, or add what is missing"
        " to the file that NIGHTJAR_PRICES names"
    )
    assert explain_missing(missing[:1]).startswith("EC2's price of m6i.xlarge on demand in us-east-1 is not known; run")


def test_each_figure_of_the_package_has_a_source_and_a_date() -> None:
    prices = parse_prices((files("jobs.prices") / "prices.toml").read_bytes(), "prices.toml")
    assert len(prices) > 5
    for each in prices:
        assert each.date is not None, each
        assert (each.usd is None) == each.source.startswith("unknown"), each


def test_the_users_file_adds_and_overrides(tmp_path: Path) -> None:
    mine = tmp_path / "my prices é.toml"
    mine.write_bytes(to_toml([price("ec2", "m6i.xlarge", 0.11), price("emr", "m6i.xlarge", 0.04)], "mine"))
    before, after = load_prices(environ={}), load_prices(environ={"NIGHTJAR_PRICES": f" {mine} "})
    assert before.find("emr", EAST, "m6i.xlarge") is None
    assert after.find("emr", EAST, "m6i.xlarge") == 0.04
    assert after.find("ec2", EAST, "m6i.xlarge") == 0.11
    assert after.find("nat", EAST) == before.find("nat", EAST) == 0.045


def test_what_is_written_is_read_again() -> None:
    prices = [
        *FULL,
        Price(kind="nat", region=EAST, usd=1e-5, source='a "list"\\ of\nÄpfel 🍎', date=date(2026, 11, 26)),
        price("ec2", "m6i.xlarge", None, SPOT),
    ]
    assert parse_prices(to_toml(prices, "two\nlines"), "it") == prices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[price]\n", "it: not TOML (expected ']]'"),
        (f"price = {'9' * 5000}\n", "it: a number has more digits than can be read; write a smaller one"),
        ("price = 3\n", "it: expected only [[price]] tables, got int"),
        ("[prices]\nx = 1\n", "it: expected only [[price]] tables, got prices"),
        ('[[price]]\nregion = "r"\n', "it: price 1: kind: field required"),
        ('[[price]]\nkind = "gpu"\nregion = "r"\n', "it: price 1: kind: input should be 'ec2', 'emr'"),
        (
            '[[price]]\nkind = "nat"\nregion = "r"\nusd = -1.0\n',
            "usd: input should be greater than or equal to 0, got -1",
        ),
        ('[[price]]\nkind = "nat"\nregion = "r"\nusd = nan\n', "usd: input should be a finite number, got nan"),
        ('[[price]]\nkind = "nat"\nregion = "r"\nusd = "1"\n', "usd: input should be a valid number, got '1'"),
        ('[[price]]\nkind = "nat"\nregion = "r"\nuds = 1.0\n', "uds: extra inputs are not permitted, got 1.0"),
        ('[[price]]\nkind = "ec2"\nregion = "r"\nusd = 1.0\n', "it: price 1: a price of the kind ec2 needs an item"),
        ('[[price]]\nkind = "nat"\nregion = "r"\nitem = "x"\n', "it: price 1: a price of the kind nat needs no item"),
        ('[[price]]\nkind = "nat"\nregion = "r"\ndate = "soon"\n', "date: input should be a valid date"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_prices(text.encode(), "it")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_names_the_variable(tmp_path: Path) -> None:
    for place in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match=f"NIGHTJAR_PRICES: {place} cannot be read"):
            load_prices(environ={"NIGHTJAR_PRICES": str(place)})
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"bad\.toml: not UTF-8 at byte 0"):
        load_prices(environ={"NIGHTJAR_PRICES": str(tmp_path / "bad.toml")})
