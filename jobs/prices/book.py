"""The known prices of AWS, from the dated file of this package and from the user's own file.

Each price names its source. An unknown price stays unknown, and no other price is used instead. The exception is a spot
price: the on-demand price is its upper bound.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jobs.config.given import parse_toml
from jobs.errors import InputError, NightjarError, shorten
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import to_uri

VARIABLE = "NIGHTJAR_PRICES"
"""The environment variable that names the user's file: a path, file:///... or s3://..."""
HOW_TO_ADD_PRICES = (
    f"run nightjar prices to get prices from AWS, or add what is missing to the file that {VARIABLE} names"
)
HOURS_OF_MONTH = 730
"""The number of hours in a month, by which the price of a disk per month is divided to get a price per hour."""
SYSTEM_DISK = "gp3"
"""The type of a node's system disk: EMR's default since release 6.15."""

Kind = Literal["ec2", "emr", "ebs", "nat", "endpoint"]
Market = Literal["on demand", "spot"]
ON_DEMAND: Final = "on demand"
SPOT: Final = "spot"
NAMES: Mapping[Kind, str] = {
    "ec2": "EC2's price",
    "emr": "EMR's price",
    "ebs": "the price of a disk",
    "nat": "the price of a NAT gateway",
    "endpoint": "the price of an interface endpoint",
}


log = logging.getLogger(__name__)


class Price(BaseModel):
    """A price in USD: per hour, or per GB and month for a disk. `kind` says what is priced, such as ``ec2``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind
    region: Annotated[str, Field(min_length=1)]
    item: str = ""
    """The instance type (for ``ec2`` and ``emr``) or the type of disk (for ``ebs``). Otherwise empty."""
    market: Market = ON_DEMAND
    usd: Annotated[float | None, Field(ge=0, strict=True)] = None
    """None if the price is not known."""
    source: str = "the user's file"
    date: datetime.date | None = None

    @model_validator(mode="after")
    def _item_fits(self) -> Price:
        if bool(self.item) != (self.kind in ("ec2", "emr", "ebs")):
            raise ValueError(f"a price of the kind {self.kind} needs {'no' if self.item else 'an'} item")
        return self

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the price is for: kind, region, item and market."""
        return self.kind, self.region, self.item, self.market

    def __str__(self) -> str:
        market = f" {self.market}" if self.kind == "ec2" else ""
        return f"{NAMES[self.kind]}{f' of {self.item}' if self.item else ''}{market} in {self.region}"


@dataclass(frozen=True)
class Rate:
    """The cost of an instance or a cluster per hour: EC2, EMR and the system disks."""

    usd: float | None
    """None if one of the prices is not known."""
    at_most: bool = False
    """Whether `usd` is an upper bound, such as the on-demand price if the spot price is not known."""
    missing: tuple[str, ...] = ()
    """The prices that are not known."""


class PriceBook:
    """The known prices. If two of `prices` have the same key, the later one counts."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._prices = {price.key: price for price in prices}

    def __iter__(self) -> Iterator[Price]:
        """Yield the prices in the order of their keys."""
        return iter(sorted(self._prices.values(), key=lambda price: price.key))

    def find(self, kind: Kind, region: str, item: str = "", market: Market = ON_DEMAND) -> float | None:
        """Return a price in USD, or None if it is not known."""
        found = self._prices.get((kind, region, item, market))
        return None if found is None else found.usd

    def rate(self, instance_type: str, market: Market, region: str, disk_gb: float) -> Rate:
        """Return the cost per hour of an instance with a system disk of `disk_gb` GB.

        If the spot price is not known, use the on-demand price as an upper bound: EMR pays no more for a spot instance.
        """
        at_most = market == SPOT and self.find("ec2", region, instance_type, SPOT) is None
        parts: list[tuple[Kind, str, Market, float]] = [
            ("ec2", instance_type, ON_DEMAND if at_most else market, 1.0),
            ("emr", instance_type, ON_DEMAND, 1.0),
            ("ebs", SYSTEM_DISK, ON_DEMAND, disk_gb / HOURS_OF_MONTH),
        ]
        total, missing = 0.0, []
        for kind, item, of_market, factor in parts:
            price = self.find(kind, region, item, of_market)
            if price is None:
                missing.append(str(Price(kind=kind, region=region, item=item, market=of_market)))
            else:
                total += price * factor
        return Rate(None if missing else total, at_most, tuple(missing))


def explain_missing(missing: Iterable[str]) -> str:
    """Return one line that says which prices are not known, and how to add them."""
    first, *others = dict.fromkeys(missing)
    more = f" and {len(others)} more" if len(others) > 2 else "".join(f", {each}" for each in others)
    return f"{first}{more} {'are' if others else 'is'} not known; {HOW_TO_ADD_PRICES}"


def load_prices(store: Store = ENVIRONMENT, environ: Mapping[str, str] = os.environ) -> PriceBook:
    """Return the prices of this package and of the user's file. A price of the user replaces that of the package."""
    own = (files("jobs.prices") / "prices.toml").read_bytes()
    prices = parse_prices(own, "prices.toml")
    if place := environ.get(VARIABLE, "").strip():
        try:
            data = store.read_bytes(to_uri(place))
        except OSError as error:
            reason = error.strerror or "no such file"
            raise InputError(f"{VARIABLE}: {place} cannot be read ({reason}); correct the variable") from None
        prices += parse_prices(data, f"{VARIABLE}: {place}")
    return PriceBook(prices)


def shown_prices(store: Store = ENVIRONMENT) -> PriceBook:
    """Return the prices to show on a page or in a list. If the user's file is wrong, log that and ignore the file."""
    try:
        return load_prices(store)
    except NightjarError as error:
        log.warning("%s; the prices of this package are used", error)
        return load_prices(store, {})


def parse_prices(data: bytes, where: str) -> list[Price]:
    """Return the prices in a TOML file.

    Raises:
        InputError: if the file or a value is wrong. The message starts with `where`.
    """
    table = parse_toml(where, data)
    rows = table.pop("price", [])
    if table or not isinstance(rows, list):
        got = shorten(", ".join(table)) or type(rows).__name__
        raise InputError(f"{where}: expected only [[price]] tables, got {got}")
    return [_parse(row, f"{where}: price {number}") for number, row in enumerate(rows, 1)]


def _parse(row: Any, where: str) -> Price:
    try:
        return Price.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
    key = shorten(".".join(map(str, first["loc"])))
    message = first["msg"].removeprefix("Value error, ")
    got = f", got {shorten(repr(first['input']))}" if key else ""
    raise InputError(f"{where}: {f'{key}: ' if key else ''}{message[0].lower()}{message[1:]}{got}")


def to_toml(prices: Iterable[Price], header: str) -> bytes:
    """Return prices as a TOML file that `parse_prices` reads, with `header` as a comment at its start."""
    parts = ["".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())]
    for price in prices:
        values = price.model_dump(exclude_none=True, exclude_defaults=True)
        parts.append("\n[[price]]\n" + "".join(f"{key} = {_to_toml(value)}\n" for key, value in values.items()))
    return "".join(parts).encode()


def _to_toml(value: str | float | datetime.date) -> str:
    """Return a value as TOML. In a string, quotes, backslashes and all but printable ASCII characters are escaped."""
    if isinstance(value, str):
        escaped = (
            each if each.isascii() and each.isprintable() and each not in '"\\' else f"\\U{ord(each):08X}"
            for each in value
        )
        return f'"{"".join(escaped)}"'
    return value.isoformat() if isinstance(value, datetime.date) else repr(value)
