"""Nightjar's own bootstrap action on the embedded EMR, from wheels in the lake: ``make test-bootstrap``.

It installs torch, which takes minutes. `test_bootstrap.py` covers the rest of bootstrap actions.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from nightjar.packaging.build import build
from nightjar.packaging.wheelhouse import make
from nightjar.packaging.wheels import Target
from tests.infra.emr.conftest import command, served

APP = """
import json, sys
import torch
from pyspark.sql import SparkSession

context = SparkSession.builder.getOrCreate().sparkContext
worker = context.parallelize([0], 1).map(lambda _: __import__("sys").prefix).collect()[0]
print(json.dumps({"driver": sys.prefix, "worker": worker, "torch": torch.__version__}))
"""

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("python3.11") is None, reason="the job's environment needs Python 3.11"),
]


def test_environment_is_built_from_wheels_in_the_lake_and_used_by_steps(tmp_path: Path) -> None:
    lake, package = tmp_path / "lake", build()
    folder = lake / "packages" / package.sha256
    folder.mkdir(parents=True)
    for name, data in package.files.items():
        (folder / name).write_bytes(data)
    wheelhouse = make(Target(os.uname().machine, "cpu"), lake / "wheelhouses")
    (lake / "app.py").write_text(APP)
    arguments = ["--package", folder.as_uri(), "--torch", "cpu", "--wheels", wheelhouse.as_uri()]
    script = {"Path": (folder / "bootstrap.sh").as_uri(), "Args": arguments}
    logs = (lake / "logs").as_uri()
    with served("--bootstrap", "full", "--state-dir", str(tmp_path / "state")) as (_, emr):
        cluster = emr.create(
            command("spark-submit", (lake / "app.py").as_uri()),
            BootstrapActions=[{"Name": "environment", "ScriptBootstrapAction": script}],
            LogUri=logs,
            alive=False,
        )
        status = emr.wait("TERMINATED TERMINATED_WITH_ERRORS", cluster, seconds=1000)
        assert status["State"] == "TERMINATED", status
        step = emr.steps(cluster)[0]["Id"]
    stdout = gzip.decompress((lake / "logs" / cluster / "steps" / step / "stdout.gz").read_bytes()).decode()
    seen = json.loads(stdout.splitlines()[-1])
    environment = str(tmp_path / "state" / cluster / "opt" / "nightjar" / "env")
    assert Path(seen["driver"]).resolve() == Path(environment).resolve()
    assert Path(seen["worker"]).resolve() == Path(environment).resolve()
    assert seen["torch"].endswith("+cpu")
    (log,) = (lake / "logs" / cluster / "node").glob("i-*/bootstrap-actions/1/stdout.gz")
    assert "packages from pip's index" not in gzip.decompress(log.read_bytes()).decode()
