"""Print the EMR requests of a run and validate them, without contacting AWS: ``make aws-plan PRESET=tiny``.

    python -m infra.aws.plan --preset tiny [--lake s3://bucket/prefix] [--set key=value ...]

The DAG's own code builds the requests from the settings in the environment (``NIGHTJAR_*``). They are validated against
botocore's model of the EMR API. No credentials are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from jobs.config import parse_settings, resolve
from jobs.errors import InputError
from jobs.lake.layout import Lake
from nightjar import settings
from nightjar.emr import requests
from nightjar.packaging.build import build

Request = tuple[str, dict[str, Any]]


def main() -> int:
    """Print the plan and return the exit code: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m infra.aws.plan", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo", help="preset of the configuration")
    parser.add_argument("--lake", default=os.environ.get("NIGHTJAR_LAKE") or "s3://my-bucket/lake")
    parser.add_argument("--corpus", default="s3://my-bucket/lake/corpora/texts")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="setting that overrides the preset; may be repeated",
    )
    options = parser.parse_args()
    try:
        requests_of_run = plan(options.lake, options.corpus, options.preset, parse_settings(options.set))
        for operation, request in requests_of_run:
            sys.stdout.write(json.dumps({operation: request}, indent=2) + "\n")
        found = [problem for operation, request in requests_of_run for problem in problems(operation, request)]
    except InputError as error:
        sys.stderr.write(f"aws-plan: {error}\n")
        return 2
    for problem in found:
        sys.stderr.write(f"aws-plan: {problem}\n")
    if not found:
        sys.stderr.write(f"aws-plan: {len(requests_of_run)} requests, valid for botocore {botocore.__version__}\n")
    return 2 if found else 0


def plan(lake_uri: str, corpus: str, preset: str, chosen: dict[str, Any]) -> list[Request]:
    """Return the requests that the tasks of a run would send: EMR operations and their parameters.

    Raises:
        InputError: if the configuration is wrong or the package would not work on the cluster.
    """
    settled = settings.load({**os.environ, "NIGHTJAR_LAKE": lake_uri})
    config = resolve(corpus, preset, {**settled.cluster, **chosen})
    lake = Lake(settled.lake.uri)
    package_uri = lake.package(build(settled.package_root).sha256)
    run = lake.run("planned")
    identity = requests.ClusterIdentity(settled.project, run)
    cluster = requests.run_job_flow(config, identity, datetime.now(UTC), package_uri)
    steps = [requests.add_step("j-PLANNED", step, config, run, package_uri) for step in config.steps]
    return [("RunJobFlow", cluster), *(("AddJobFlowSteps", step) for step in steps)]


def problems(operation: str, request: dict[str, Any]) -> list[str]:
    """Return the errors in a request according to botocore's model of EMR."""
    model = botocore.session.get_session().get_service_model("emr").operation_model(operation)
    assert model.input_shape is not None
    report = ParamValidator().validate(request, model.input_shape).generate_report()
    return [f"{operation}: {line}" for line in report.splitlines()]


if __name__ == "__main__":
    sys.exit(main())
