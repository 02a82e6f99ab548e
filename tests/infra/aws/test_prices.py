"""Prices from AWS: requests that fit botocore's model, answers of several products, and the file that is written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from moto.server import ThreadedMotoServer

from infra.aws import prices as asked
from infra.aws.prices import fetch_prices, questions
from infra.cli import prices as command
from infra.cli.main import main
from jobs.prices.book import Price

REGION = "eu-west-1"


def product(usd: str, usage: str = "EU-BoxUsage:m6i.xlarge", **dimension: str) -> str:
    """A product as the price list describes it, reserved terms among others."""
    price = {"unit": "Hrs", "pricePerUnit": {"USD": usd}, "beginRange": "0", "endRange": "Inf", **dimension}
    reserved = {"r": {"priceDimensions": {"d": {"unit": "Hrs", "pricePerUnit": {"USD": "0.01"}}}}}
    terms = {"OnDemand": {"sku.term": {"priceDimensions": {"sku.term.d": price}}}, "Reserved": reserved}
    return json.dumps({"product": {"attributes": {"usagetype": usage}}, "serviceCode": "x", "terms": terms})


class Account:
    """Clients whose requests and answers botocore validates against its models."""

    def __init__(self, types: list[str], answers: dict[tuple[str, str], list[str]], spot: dict[str, list[str]]) -> None:
        self.clients = {name: _client(name) for name in ("pricing", "ec2")}
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        for question in questions(types):
            found = answers.get((question.kind, question.item), [])
            self.stubs["pricing"].add_response("get_products", {"PriceList": found}, question.request(REGION))
        for name in types:
            history = [{"SpotPrice": usd, "InstanceType": name} for usd in spot.get(name, [])]
            wanted = {"InstanceTypes": [name], "ProductDescriptions": ["Linux/UNIX"], "StartTime": ANY, "EndTime": ANY}
            self.stubs["ec2"].add_response("describe_spot_price_history", {"SpotPriceHistory": history}, wanted)
        for stub in self.stubs.values():
            stub.activate()

    def connect(self, service: str, region: str) -> Any:
        assert region == (asked.PRICE_LIST_REGION if service == "pricing" else REGION)
        return self.clients[service]


def _client(name: str) -> Any:
    made: Any = boto3.Session("key", "secret", region_name="us-east-1").client(name)  # type: ignore[call-overload]
    return made


ANSWERS = {
    ("ec2", "m6i.xlarge"): [product("0.2140000000"), product("0.2140000000")],
    ("emr", "m6i.xlarge"): [product("0.0480000000")],
    ("ec2", "g5.xlarge"): [product("1.123"), product("1.5")],
    ("ebs", "gp3"): [product("0.088", "EU-EBS:VolumeUsage.gp3"), product("0.9", "EU-EBS:VolumeP-IOPS.gp3")],
    ("nat", ""): [product("0.048", "EU-NatGateway-Hours"), product("0.048", "EU-NatGateway-Bytes")],
    ("endpoint", ""): [
        product("0.011", "EU-VpcEndpoint-Hours"),
        product("0.005", "EU-VpcEndpoint-Hours", beginRange="1000"),
    ],
}


@pytest.fixture
def account() -> Iterator[Account]:
    made = Account(["g5.xlarge", "m6i.xlarge"], ANSWERS, {"m6i.xlarge": ["0.081000", "0.079000"]})
    yield made
    for stub in made.stubs.values():
        stub.assert_no_pending_responses()


def test_the_answers_become_prices_and_none_is_chosen_among_several(account: Account) -> None:
    found = {
        price.key: price for price in fetch_prices(["m6i.xlarge", "g5.xlarge", "m6i.xlarge"], REGION, account.connect)
    }
    figures = {(kind, item, market): price.usd for (kind, _, item, market), price in found.items()}
    assert figures == {
        ("ec2", "m6i.xlarge", "on demand"): 0.214,
        ("emr", "m6i.xlarge", "on demand"): 0.048,
        ("ec2", "g5.xlarge", "on demand"): None,
        ("emr", "g5.xlarge", "on demand"): None,
        ("ec2", "m6i.xlarge", "spot"): 0.081,
        ("ec2", "g5.xlarge", "spot"): None,
        ("ebs", "gp3", "on demand"): 0.088,
        ("nat", "", "on demand"): 0.048,
        ("endpoint", "", "on demand"): 0.011,
    }
    assert found["ec2", REGION, "g5.xlarge", "on demand"].source == "unknown: AWS's price list has 2 prices for it"
    assert all((price.usd is None) == price.source.startswith("unknown") for price in found.values())


def test_the_command_writes_the_users_file_and_keeps_its_other_prices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, account: Account
) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(
        '[[price]]\nkind = "emr"\nregion = "eu-west-1"\nitem = "m6i.xlarge"\nusd = 9.0\n'
        '[[price]]\nkind = "ec2"\nregion = "us-west-2"\nitem = "m5.large"\nusd = 0.1\n'
    )
    monkeypatch.setenv("NIGHTJAR_PRICES", str(file))
    monkeypatch.setattr(command, "_connect", account.connect)
    chosen = {"primary": '["m6i.xlarge"]', "core": '["g5.xlarge"]', "task": '["g5.xlarge"]'}
    settings = [word for key, types in chosen.items() for word in ("--set", f"cluster.{key}_instance_types={types}")]
    assert main(["prices", "--region", REGION, *settings]) == 0
    output = capsys.readouterr()
    rows = tomllib.loads(file.read_text())["price"]
    usd = {(row["kind"], row["region"], row.get("item"), row.get("market")): row.get("usd") for row in rows}
    assert usd["emr", REGION, "m6i.xlarge", None] == 0.048
    assert usd["ec2", "us-west-2", "m5.large", None] == 0.1
    assert len(output.out.splitlines()) == 9
    assert f"prices: 9 written to {file}\n" in output.err
    assert "are not known; run nightjar prices" in output.err


def test_a_price_that_is_known_is_not_lost_to_an_answer_without_one(tmp_path: Path) -> None:
    known = Price(kind="emr", region=REGION, item="m6i.xlarge", usd=0.05)
    file = tmp_path / "prices.toml"
    for prices in ([known], [known.model_copy(update={"usd": None, "source": "unknown to AWS's price list"})]):
        command._write(str(file), command._prices_in(str(file)), prices)
    assert tomllib.loads(file.read_text())["price"][0]["usd"] == 0.05


def test_spot_prices_come_from_an_ec2_of_moto() -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        client = boto3.Session("key", "secret").client("ec2", region_name=REGION, endpoint_url=endpoint)
        history = client.get_paginator("describe_spot_price_history")
        assert asked._spot(history, "m5.large", datetime.now(UTC)) == 0.00001  # moto's price of everything
    finally:
        server.stop()


def test_without_credentials_the_command_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file = tmp_path / "prices.toml"
    assert main(["prices", "--file", str(file)]) == 2
    assert capsys.readouterr().err == "nightjar: no region: give --region, or set AWS_REGION\n"
    assert main(["prices", "--file", str(file), "--region", REGION]) != 0
    message = capsys.readouterr().err
    assert "redentials" in message
    assert message.count("\n") == 1
    assert not file.exists()


def test_a_file_that_cannot_have_prices_is_refused_before_aws_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "fetch_prices", lambda *_: pytest.fail("AWS was asked"))
    (tmp_path / "other.toml").write_text("[run]\n")
    for place, message in (("https://", "https://"), (str(tmp_path / "other.toml"), "other.toml")):
        assert main(["prices", "--file", place, "--region", REGION]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
