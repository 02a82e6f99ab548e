"""The smallest run, on the embedded EMR: what it records, and that its cluster ends whatever happens."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.aws import smoke
from infra.cli.main import main
from infra.emr.server import embedded_emr
from infra.emr.settings import EmrSettings
from jobs.engine.machine_facts import without_secrets
from jobs.lake import store
from nightjar.emr.records import ClusterRecords

pytestmark = [pytest.mark.slow, pytest.mark.spark]

YARN_SITE = """<configuration>
  <property><name>yarn.nodemanager.resource.memory-mb</name><value>11712</value></property>
  <property>
    <name>fs.s3a.secret.key</name>
    <value>abc</value>
  </property>
</configuration>"""


@pytest.fixture
def emr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with embedded_emr(EmrSettings(buckets=("lakes",), state_dir=tmp_path / "emr")) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("NIGHTJAR_LAKE", "s3://lakes/lake")
        monkeypatch.setenv("NIGHTJAR_SPARK_EXECUTORS", "1")
        monkeypatch.setenv("NIGHTJAR_SPARK_EXECUTOR_CORES", "1")
        store.environment_client.cache_clear()
        yield
        store.environment_client.cache_clear()


def states() -> list[str]:
    return [cluster["Status"]["State"] for cluster in boto3.client("emr").list_clusters()["Clusters"]]


@pytest.mark.long
@pytest.mark.usefixtures("emr")
def test_facts_logs_and_descriptions_are_in_one_file(tmp_path: Path) -> None:
    path = smoke.smoke({}, tmp_path / "out", 0.3, steps=())
    archive = zipfile.ZipFile(path)
    assert {"request.json", "cluster.json", "facts.json", "steps/facts/controller.gz"} <= set(archive.namelist())
    facts = json.loads(archive.read("facts.json"))
    assert facts["driver"]["packages"]["pyspark"]
    assert {each["variables"]["AWS_REGION"] for each in facts["executors"]} == {"us-east-1"}
    described = json.loads(archive.read("cluster.json"))
    assert [step["Status"]["State"] for step in described["Steps"]] == ["COMPLETED"]
    assert described["Name"].startswith("nightjar-lab/smoke/")
    assert states() == ["TERMINATED"]


@pytest.mark.usefixtures("emr")
def test_a_failed_step_leaves_the_file_and_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smoke.requests, "spark_submit", lambda *_: ["false"])
    with pytest.raises(smoke.SmokeError, match=r"step facts FAILED; see the records in .*\.zip"):
        smoke.smoke({}, tmp_path, 0.3, steps=())
    assert list(tmp_path.glob("nightjar-smoke-emr-spark-8.0.0-j-*.zip"))
    assert states() == ["TERMINATED"]
    assert "facts FAILED" in capsys.readouterr().err


@pytest.mark.usefixtures("emr")
def test_ctrl_c_while_emr_answers_leaves_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, raised = ClusterRecords.change, [KeyboardInterrupt]

    def interrupted(*arguments: Any, **values: Any) -> Any:
        if raised:
            raise raised.pop()
        return change(*arguments, **values)

    monkeypatch.setattr(ClusterRecords, "change", interrupted)
    with pytest.raises(KeyboardInterrupt):
        smoke.smoke({}, tmp_path, 0.3, steps=())
    assert states() == ["TERMINATED"]


@pytest.mark.usefixtures("emr")
def test_nothing_is_started_without_consent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aws-smoke"]) == 2
    printed = capsys.readouterr().err
    assert (
        "to confirm the cost of one m6i.xlarge and 1 m6i.xlarge for about 20 minutes, 45 at most; give --yes" in printed
    )
    assert states() == []


def test_no_secret_is_recorded() -> None:
    assert "11712" in without_secrets(YARN_SITE)
    assert "abc" not in without_secrets(YARN_SITE)
    plain = "spark.authenticate true\nspark.authenticate.secret abc\n"
    assert without_secrets(plain).splitlines() == ["spark.authenticate true", "(left out)"]
