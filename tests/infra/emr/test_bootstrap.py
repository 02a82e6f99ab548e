"""Bootstrap actions are executed: from S3 and from a folder, with arguments, logs and failures."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.emr.bootstrap import skip_reason
from tests.infra.emr.conftest import Emr, bash, command, descendants
from tests.support.waiting import until

pytestmark = pytest.mark.slow

PACKAGE = "s3://lake/packages/0123/bootstrap.sh"


def action(path: str, *args: str) -> dict[str, Any]:
    return {"Name": Path(path).stem, "ScriptBootstrapAction": {"Path": path, "Args": list(args)}}


def script(emr: Emr, name: str, text: str) -> str:
    emr.s3.put_object(Bucket="lake", Key=f"scripts/{name}", Body=f"#!/bin/bash\n{text}\n".encode())
    return f"s3://lake/scripts/{name}"


def log(emr: Emr, cluster: str, number: int, name: str) -> str:
    node = emr.api.list_instances(ClusterId=cluster, InstanceGroupTypes=["MASTER"])["Instances"][0]["Ec2InstanceId"]
    key = f"logs/{cluster}/node/{node}/bootstrap-actions/{number}/{name}.gz"
    return gzip.decompress(emr.s3.get_object(Bucket="lake", Key=key)["Body"].read()).decode()


def test_actions_run_in_order_with_their_arguments_before_the_first_step(emr: Emr, tmp_path: Path) -> None:
    local = tmp_path / "a folder é" / "second.sh"
    local.parent.mkdir()
    seen = tmp_path / "seen"
    local.write_text(f'#!/bin/bash\necho second "$@" >>"{seen}"\npwd\n')
    first = script(emr, "first.sh", f'echo first "$1" "$AWS_ENDPOINT_URL" "$FOR_STEPS" >>"{seen}"; echo oops >&2')
    cluster = emr.create(
        bash(f"cat '{seen}'"), BootstrapActions=[action(first, "a b"), action(local.as_uri(), "--x", "1")], alive=False
    )
    emr.wait("TERMINATED", cluster)
    step = emr.steps(cluster)[0]["Id"]
    assert emr.log(cluster, step) == f"first a b {emr.endpoint_url} yes\nsecond --x 1\n"
    assert log(emr, cluster, 1, "stderr") == "oops\n"
    assert f"/{cluster}/bootstrap-actions/2/work" in log(emr, cluster, 2, "stdout")
    assert "exit status 0" in log(emr, cluster, 2, "controller")
    commands = emr.api.list_bootstrap_actions(ClusterId=cluster)["BootstrapActions"]
    assert commands == [
        {"Name": "first", "ScriptPath": first, "Args": ["a b"]},
        {"Name": "second", "ScriptPath": local.as_uri(), "Args": ["--x", "1"]},
    ]


def test_failed_action_ends_the_cluster(emr: Emr) -> None:
    paths = [script(emr, "fine.sh", "true"), script(emr, "bad.sh", "echo no disk >&2; exit 7"), "s3://lake/never.sh"]
    cluster = emr.create(bash("echo never"), BootstrapActions=[action(path) for path in paths])
    status = emr.wait("TERMINATED_WITH_ERRORS", cluster)
    node = emr.api.list_instances(ClusterId=cluster)["Instances"][0]["Ec2InstanceId"]
    message = f"On the master instance ({node}), bootstrap action 2 returned a non-zero return code"
    assert status["StateChangeReason"] == {"Code": "BOOTSTRAP_FAILURE", "Message": message}
    (details,) = status["ErrorDetails"]
    assert details["ErrorCode"] == "BOOTSTRAP_FAILURE_PRIMARY_WITH_NON_ZERO_CODE"
    assert {key: value for each in details["ErrorData"] for key, value in each.items() if key != "public-doc"} == {
        "primary-instance-id": node,
        "bootstrap-action": "2",
        "return-code": "7",
        "amazon-s3-path": paths[1],
    }
    assert log(emr, cluster, 2, "stderr") == "no disk\n"
    assert emr.states(cluster) == ["CANCELLED"]


def test_missing_script_ends_the_cluster(emr: Emr) -> None:
    cluster = emr.create(BootstrapActions=[action("s3://lake/scripts/none.sh")])
    status = emr.wait("TERMINATED_WITH_ERRORS", cluster)
    assert status["StateChangeReason"]["Message"].endswith(
        "failed attempting to download bootstrap action 1 file from S3"
    )
    assert status["ErrorDetails"][0]["ErrorCode"] == "BOOTSTRAP_FAILURE_BA_DOWNLOAD_FAILED_PRIMARY"
    assert "cannot read s3://lake/scripts/none.sh" in log(emr, cluster, 1, "controller")


def test_terminated_cluster_ends_its_bootstrap_action(emr: Emr) -> None:
    cluster = emr.create(BootstrapActions=[action(script(emr, "long.sh", "sleep 299"))])
    until(lambda: descendants("sleep 299"))
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    assert emr.wait("TERMINATED", cluster)["StateChangeReason"]["Code"] == "USER_REQUEST"
    assert not descendants("sleep 299")


def test_own_action_is_skipped_and_the_log_says_so(emr: Emr, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "infra.emr")
    cluster = emr.create(BootstrapActions=[action(PACKAGE, "--package", "s3://lake/packages/0123")])
    emr.wait("WAITING", cluster)
    assert f"{cluster} bootstrap action 1 (bootstrap) is not executed: it builds Nightjar's environment" in caplog.text
    emr.api.terminate_job_flows(JobFlowIds=[cluster])
    ours = action(PACKAGE, "--package", "s3://lake/packages/0123")["ScriptBootstrapAction"]
    assert skip_reason(ours, "fast")
    assert not skip_reason(ours, "full")
    assert not skip_reason({"Path": "s3://other/bootstrap.sh"}, "fast")


def test_steps_use_the_environment_that_an_action_builds(emr: Emr) -> None:
    built = script(
        emr,
        "build.sh",
        f'mkdir -p "$NIGHTJAR_PREFIX/env/bin"; ln -s "{sys.executable}" "$NIGHTJAR_PREFIX/env/bin/python"',
    )
    print_python = command("bash", "-c", "echo $PYSPARK_PYTHON; echo $PYSPARK_DRIVER_PYTHON")
    cluster = emr.create(print_python, BootstrapActions=[action(built)], alive=False)
    emr.wait("TERMINATED", cluster)
    driver, worker = emr.log(cluster, emr.steps(cluster)[0]["Id"]).splitlines()
    assert driver == worker
    assert driver.endswith(f"/{cluster}/opt/nightjar/env/bin/python")
