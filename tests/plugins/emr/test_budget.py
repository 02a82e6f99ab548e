"""A run that reaches its budget while it trains: the real job on the embedded EMR, without a JVM."""

import re
import uuid

import pytest

from infra.airflow.environment import PROJECT_ROOT
from jobs.config import resolve
from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.prices.book import Price, to_toml
from jobs.results.summary import read_bill, read_summary
from nightjar.aws import store
from nightjar.tasks import package, preflight, results
from tests.support import airflow
from tests.support.no_spark import no_spark
from tests.support.real_job import poems
from tests.support.recorded_nights import run_on_cluster

pytestmark = [pytest.mark.slow, pytest.mark.long]
BUDGET = 75.0
"""USD, at a dollar a second. AWS charges for a minute at the least."""


@pytest.fixture
def real(tmp_path, monkeypatch):
    """An embedded EMR that executes the real job, where the three nodes of a cluster cost a dollar a second."""
    prices = [Price(kind=kind, region="us-east-1", item="m6i.xlarge", usd=600.0) for kind in ("ec2", "emr")]
    prices.append(Price(kind="ebs", region="us-east-1", item="gp3", usd=0.0))
    (tmp_path / "prices.toml").write_bytes(to_toml(prices, "dear"))
    monkeypatch.setenv("NIGHTJAR_PRICES", str(tmp_path / "prices.toml"))
    with airflow.emr_process(tmp_path, no_spark(tmp_path / "no_spark", "--engine inline")) as emr:
        airflow.connect(monkeypatch, emr.endpoint)
        yield emr


def test_a_budget_that_is_reached_leaves_a_model_and_no_cluster(real, tmp_path):
    corpus = tmp_path / "poems.txt"
    corpus.write_bytes(poems() * 20)
    lake = Lake((tmp_path / "lake").as_uri())
    types = {f"cluster.{role}_instance_types": ["m6i.xlarge"] for role in ("primary", "core", "task")}
    settings = {**types, "train.epochs": 10_000, "train.max_tokens": None, "train.workers": 1, "budget.usd": BUDGET}
    run = lake.run(f"run-{uuid.uuid4().hex[:8]}", "default")
    config = preflight.prepare(resolve(str(corpus), "tiny", {"tokenize.vocab_size": 400, **settings}), run).config
    cluster_id = run_on_cluster(run, config, package.upload(lake, PROJECT_ROOT))
    assert real.client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"] == "TERMINATED"
    stats = store().read_json(join(run.stats, "stats.json"))["steps"]
    assert stats["train"]["stopped_by_budget"]
    assert stats["train"]["num_steps"] > 1
    assert store().read_manifest(run.model) is not None
    assert stats["generate"]["num_samples"] > 0
    bill = read_bill(run, store(), is_running=False)
    assert 1 < bill.steps["train"].usd < BUDGET < 2 * bill.total.usd
    results.pull_stats(run, tmp_path / "stats")
    summary = read_summary(run, store())
    assert (bill.is_embedded, summary.cost_usd) == (True, 0.0)
    assert re.search(r"^nothing on the embedded EMR; on AWS it would be .* m6i\.xlarge .*, .* USD$", summary.cost_note)
    later = lake.run(f"run-{uuid.uuid4().hex[:8]}", "default")
    longer = resolve(str(corpus), "tiny", {"tokenize.vocab_size": 400, **settings, "budget.usd": 1.0})
    with pytest.raises(
        InputError, match=r"budget\.usd: the run is expected to cost .* USD, more than 1\.00 \(Estimate from 1"
    ):
        preflight.prepare(longer, later)
