"""Print prices, or fetch them from AWS: ``nightjar prices``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from infra.cli.aws import Preset
from jobs.cli import options
from jobs.errors import InputError

if TYPE_CHECKING:
    from jobs.prices.book import Price

_HEADER = """\
Prices in USD: per hour, but for disks (ebs) per GB and month. An entry without `usd` is a price that is not known.
`nightjar prices` gets prices from AWS and rewrites this file. The prices in the file that NIGHTJAR_PRICES names
override those of the package.

Spot prices change by the hour. EMR bids at most the on-demand price for a spot instance (InstanceTypeConfig,
BidPriceAsPercentageOfOnDemandPrice), so the on-demand price is an upper bound for an unknown spot price."""

app = typer.Typer()


@app.command("prices", rich_help_panel="AWS")
def prices(
    preset: Preset = "demo",
    region: Annotated[
        str | None, Option(metavar="NAME", help="Region of the clusters. Default: AWS_REGION.", show_default=False)
    ] = None,
    file: Annotated[
        str | None,
        Option(metavar="FILE", help="File to write. Default: NIGHTJAR_PRICES, else prices.toml of this project."),
    ] = None,
    known: Annotated[bool, Option("--known", help="Print the known prices, without a request to AWS.")] = False,
    settings: options.Settings = None,
) -> None:
    """Fetch the prices of a configuration's clusters from AWS, write them to a file, and print them.

    The command needs credentials with the permissions pricing:GetProducts and ec2:DescribeSpotPriceHistory. The file
    keeps its prices for other instance types and regions.
    """
    from importlib.resources import files

    from jobs.config import environment_settings, parse_settings, resolve
    from jobs.lake.region import find_region
    from jobs.prices.book import VARIABLE, explain_missing, load_prices

    if known:
        for price in load_prices():
            sys.stdout.write(f"{_row(price)}\n")
        return
    cluster = resolve("s3://corpus", preset, {**environment_settings(), **parse_settings(settings or ())}).cluster
    place = region or find_region()
    if place is None:
        raise InputError("no region: give --region, or set AWS_REGION")
    from infra.aws.prices import fetch_prices

    file = file or os.environ.get(VARIABLE, "").strip() or str(files("jobs.prices") / "prices.toml")
    before = _prices_in(file)
    found = fetch_prices(
        {*cluster.primary_instance_types, *cluster.core_instance_types, *cluster.task_instance_types}, place, _connect
    )
    _write(file, before, found)
    for price in found:
        sys.stdout.write(f"{_row(price)}\n")
    sys.stderr.write(f"prices: {len(found)} written to {file}\n")
    if missing := [str(price) for price in found if price.usd is None]:
        sys.stderr.write(f"prices: {explain_missing(missing)}\n")


def _connect(service: str, region: str) -> Any:
    import boto3

    return boto3.Session().client(service, region_name=region)  # type: ignore[call-overload]  # one for each name


def _prices_in(file: str) -> list[Price]:
    """Return the prices in a file. Return an empty list if the file does not exist."""
    from jobs.lake import store
    from jobs.lake.uri import to_uri
    from jobs.prices.book import parse_prices

    uri = to_uri(file)
    return list(parse_prices(store.read_bytes(uri), file)) if store.exists(uri) else []


def _write(file: str, before: list[Price], found: list[Price]) -> None:
    """Write the prices `found` to a file, together with its earlier prices `before`.

    An unknown price does not replace a known price.
    """
    from jobs.lake import store
    from jobs.lake.uri import to_uri
    from jobs.prices.book import PriceBook, to_toml

    known = {price.key for price in before if price.usd is not None}
    new = [price for price in found if price.usd is not None or price.key not in known]
    store.write_bytes(to_uri(file), to_toml(PriceBook([*before, *new]), _HEADER))


def _row(price: Price) -> str:
    usd = "unknown" if price.usd is None else f"{price.usd:g}"
    return "\t".join(
        (price.kind, price.region, price.item or "-", price.market, usd, price.source, str(price.date or "-"))
    )
