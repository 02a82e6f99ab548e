"""Get prices from AWS: spot prices from EC2, and all others from AWS's price list.

The price list has several products for most instance types, such as one for each tenancy. The filters of a search are
meant to select one price. If the selected products have several different prices, the price counts as unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.prices.book import SPOT, SYSTEM_DISK, Kind, Price

PRICE_LIST_REGION = "us-east-1"
"""The region in which the price list's API is called. Few regions have this API. It has the prices of all regions."""
_LINUX = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


@dataclass(frozen=True)
class Question:
    """A search for one price in the price list."""

    kind: Kind
    service: str
    filters: Mapping[str, str]
    item: str = ""
    usage: str = ""
    """The end of the product's usage type. The beginning is not compared, since it is a short name of the region."""

    def request(self, region: str) -> dict[str, Any]:
        """Return the GetProducts request."""
        wanted = {"regionCode": region, **self.filters}
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
        return {"ServiceCode": self.service, "FormatVersion": "aws_v1", "Filters": filters}


def questions(instance_types: Iterable[str]) -> Iterator[Question]:
    """Yield a search for each price of a cluster: its instance types, system disks, NAT gateway and VPC endpoints."""
    for name in instance_types:
        yield Question("ec2", "AmazonEC2", {"instanceType": name, **_LINUX}, name)
        yield Question("emr", "ElasticMapReduce", {"instanceType": name, "softwareType": "EMR"}, name)
    disk = {"productFamily": "Storage", "volumeApiName": SYSTEM_DISK}
    yield Question("ebs", "AmazonEC2", disk, SYSTEM_DISK, f"EBS:VolumeUsage.{SYSTEM_DISK}")
    yield Question("nat", "AmazonEC2", {"productFamily": "NAT Gateway"}, usage="NatGateway-Hours")
    yield Question("endpoint", "AmazonVPC", {"productFamily": "VpcEndpoint"}, usage="VpcEndpoint-Hours")


def fetch_prices(instance_types: Iterable[str], region: str, connect: Callable[[str, str], Any]) -> list[Price]:
    """Return the prices for clusters with these instance types. If AWS does not state a price, its `usd` is None.

    Args:
        instance_types: The instance types.
        region: The region of the clusters.
        connect: Function that returns a boto3 client. Its arguments are the names of a service and a region.
    """
    types, today = sorted(set(instance_types)), datetime.now(UTC)
    price_list = connect("pricing", PRICE_LIST_REGION)
    found = []
    for question in questions(types):
        usd, source = _on_demand(price_list, question, region)
        found.append(
            Price(kind=question.kind, region=region, item=question.item, usd=usd, source=source, date=today.date())
        )
    history = connect("ec2", region).get_paginator("describe_spot_price_history")
    for name in types:
        usd = _spot(history, name, today)
        source = "EC2, DescribeSpotPriceHistory, dearest zone" if usd is not None else "unknown to EC2"
        found.append(
            Price(kind="ec2", region=region, item=name, market=SPOT, usd=usd, source=source, date=today.date())
        )
    return found


def _on_demand(price_list: Any, question: Question, region: str) -> tuple[float | None, str]:
    """Return the price that the price list has for a search, and its source.

    Return None instead of the price if the price list has no price, or several.
    """
    found = set()
    for page in price_list.get_paginator("get_products").paginate(**question.request(region)):
        for item in page["PriceList"]:
            product = json.loads(item) if isinstance(item, str) else item
            if product["product"]["attributes"].get("usagetype", "").endswith(question.usage):
                found |= set(_prices_of(product))
    if len(found) > 1:
        return None, f"unknown: AWS's price list has {len(found)} prices for it"
    return (found.pop(), "AWS's price list, GetProducts") if found else (None, "unknown to AWS's price list")


def _prices_of(product: Mapping[str, Any]) -> Iterator[float]:
    """Yield the on-demand prices of a product. If the price depends on usage, yield only that of the first tier."""
    for term in product["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = dimension["pricePerUnit"].get("USD")
            if usd is not None and float(usd) > 0 and dimension.get("beginRange", "0") == "0":
                yield float(usd)


def _spot(history: Any, instance_type: str, now: datetime) -> float | None:
    """Return the current spot price of an instance type in the region's most expensive zone.

    Return None if EC2 has no spot price for the type.
    """
    asked = {"InstanceTypes": [instance_type], "ProductDescriptions": ["Linux/UNIX"], "StartTime": now, "EndTime": now}
    prices = [float(each["SpotPrice"]) for page in history.paginate(**asked) for each in page["SpotPriceHistory"]]
    return max(prices, default=None)
