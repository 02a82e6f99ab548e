"""The EMR requests of a run, built and validated without contacting AWS: ``nightjar aws-plan --preset tiny``.

The DAG's own code builds the requests from the settings in the environment (``NIGHTJAR_*``). They are validated against
botocore's model of the EMR API. No credentials are needed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from jobs.config import environment_settings, resolve
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake
from jobs.lake.region import find_region
from jobs.lake.uri import to_uri
from nightjar import settings
from nightjar.emr import requests
from nightjar.packaging.build import build
from nightjar.tasks.placement import place

Request = tuple[str, dict[str, Any]]


def plan(lake_uri: str, corpus: str, preset: str, chosen: dict[str, Any]) -> list[Request]:
    """Return the requests that a run of the DAG would send to EMR. Each is an operation and its parameters."""
    settled = settings.load()
    config = place(resolve(corpus, preset, {**environment_settings(), **chosen}))
    lake = Lake(to_uri(lake_uri))
    package_uri = lake.package(build(settled.package_root).sha256)
    run = lake.run("planned", DEFAULT, settled.project)
    identity = requests.ClusterIdentity(run)
    cluster = requests.run_job_flow(config, identity, datetime.now(UTC), package_uri, find_region())
    steps = [requests.add_step("j-PLANNED", step, config, run, package_uri) for step in config.steps]
    return [("RunJobFlow", cluster), *(("AddJobFlowSteps", step) for step in steps)]


def problems(operation: str, request: dict[str, Any]) -> list[str]:
    """Return the errors in a request according to botocore's model of EMR."""
    model = botocore.session.get_session().get_service_model("emr").operation_model(operation)
    assert model.input_shape is not None
    report = ParamValidator().validate(request, model.input_shape).generate_report()
    return [f"{operation}: {line}" for line in report.splitlines()]
