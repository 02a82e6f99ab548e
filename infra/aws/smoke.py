"""Do the smallest run on AWS, to record facts that only a real cluster can show: ``nightjar aws-smoke``.

One core node runs the preset tiny on a few kilobytes of text. Before that, a step ``facts`` records the release's
configuration files, versions, disks and GPUs. All records are written to one zip file. The cluster is ended in any
case: by this command, or by EMR after an idle time.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from infra.aws.smallest import LIMIT_SECONDS, SMALL
from jobs.config import environment_settings, resolve
from jobs.errors import NightjarError
from jobs.lake.region import find_region
from jobs.lake.store import Store
from jobs.lake.uri import join
from nightjar import settings
from nightjar.emr import outcome, requests
from nightjar.emr.run_clusters import RunClusters
from nightjar.packaging.build import zip_bytes
from nightjar.tasks.package import upload
from nightjar.tasks.placement import place

if TYPE_CHECKING:
    from jobs.lake.layout import Run

_WORDS = "some say the world will end in fire and some say in ice from what they tasted of desire"
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")


class SmokeError(NightjarError):
    """The smallest run on AWS failed. Its records are written to the zip file all the same."""


def smoke(chosen: Mapping[str, Any], folder: Path, poll_seconds: float, steps: Sequence[str] | None = None) -> Path:
    """Do the smallest run on its own cluster, and return the path of the zip file with its records.

    Args:
        chosen: Settings that override those of the environment, such as other instance types.
        folder: Local folder of the zip file.
        poll_seconds: Seconds between two requests for the state of the cluster.
        steps: The pipeline steps to run. None: all steps of the preset.

    Raises:
        SmokeError: if a step failed, or if the cluster ended or took too long. The zip file exists even then.
    """
    settled, client, store = settings.load(), boto3.client("emr", region_name=find_region()), Store()
    run_id = f"smoke-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    run = settled.lake.run(run_id, "smoke", settled.project)
    corpus = join(run.uri, "smoke", "corpus.txt")
    store.write_bytes(corpus, _text())
    config = place(resolve(corpus, "tiny", {**SMALL, **environment_settings(), **chosen}))
    store.write_bytes(run.config, config.to_json().encode())
    package = upload(settled.lake, settled.package_root, store)
    identity = requests.ClusterIdentity(run)
    request = requests.run_job_flow(config, identity, datetime.now(UTC), package, client.meta.region_name)
    clusters = RunClusters(lambda: client, store, identity, poll_seconds)
    try:  # the request for the cluster is inside, because Ctrl-C may come before EMR's answer
        cluster_id = clusters.acquire(config, package)
        sys.stderr.write(f"aws-smoke: cluster {cluster_id}; press Ctrl-C to end it\n")
        for name in ("facts", *(config.steps if steps is None else steps)):
            client.add_job_flow_steps(**requests.add_step(cluster_id, name, config, run, package))
        failed = _wait(client, cluster_id, poll_seconds)
        described = _describe(client, cluster_id)
    finally:
        clusters.end()
    patience = outcome.log_wait_seconds(client.meta.endpoint_url, poll_seconds)
    files = {
        "request.json": _json(request),
        "cluster.json": _json(described),
        **_logs(store, join(settled.lake.logs, cluster_id, "steps"), described["Steps"], patience, poll_seconds),
        **_facts(store, run),
    }
    path = folder / f"nightjar-smoke-{config.cluster.release_label}-{cluster_id}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_bytes(files))
    if failed:
        raise SmokeError(f"{failed}; see the records in {path}")
    return path


def _text() -> bytes:
    """Return text of a few kilobytes, enough for windows of the preset tiny."""
    words = _WORDS.split()
    lines = (" ".join(words[(i * j + i) % len(words)] for j in range(3, 17)) for i in range(900))
    return "\n\n".join(lines).encode()


def _wait(client: Any, cluster_id: str, poll_seconds: float) -> str | None:
    """Wait for the end of all steps or of the cluster, at most `LIMIT_SECONDS`. Return what went wrong, or None."""
    deadline, shown = time.monotonic() + LIMIT_SECONDS, ""
    while True:
        cluster = client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
        steps = [(step["Name"], step["Status"]["State"]) for step in _steps(client, cluster_id)]
        line = f"{cluster['State']}; " + ", ".join(f"{name} {state}" for name, state in steps)
        if line != shown:
            sys.stderr.write(f"aws-smoke: {line}\n")
            shown = line
        if cluster["State"] in requests.ENDED_CLUSTER_STATES:
            reason = cluster.get("StateChangeReason", {})
            return f"cluster {cluster_id} ended: {reason.get('Code', '')} {reason.get('Message', '')}".strip()
        if all(state in _ENDED for _, state in steps):
            lost = [f"step {name} {state}" for name, state in steps if state != "COMPLETED"]
            return ", ".join(lost) or None
        if time.monotonic() > deadline:
            return f"cluster {cluster_id} was still {cluster['State']} after {LIMIT_SECONDS / 60:.0f} minutes"
        time.sleep(poll_seconds)


def _steps(client: Any, cluster_id: str) -> list[Any]:
    """Return the steps of a cluster in the order in which they were added."""
    pages = client.get_paginator("list_steps").paginate(ClusterId=cluster_id)
    return [step for page in pages for step in page["Steps"]][::-1]


def _describe(client: Any, cluster_id: str) -> dict[str, Any]:
    """Return EMR's description of the cluster, its steps and its instances."""
    described: dict[str, Any] = dict(client.describe_cluster(ClusterId=cluster_id)["Cluster"])
    described["Steps"] = _steps(client, cluster_id)
    pages = client.get_paginator("list_instances").paginate(ClusterId=cluster_id)
    described["Instances"] = [each for page in pages for each in page["Instances"]]
    return described


def _logs(
    store: Store, folder: str, steps: Sequence[Any], wait_seconds: float, poll_seconds: float
) -> dict[str, bytes]:
    """Return the logs of the steps, as a dict from file names in the zip file to contents.

    Wait up to `wait_seconds` seconds until EMR has uploaded the logs. Logs that EMR uploads later are left out.
    """
    deadline = time.monotonic() + wait_seconds
    wanted = {f"steps/{step['Name']}/controller.gz": join(folder, step["Id"], "controller.gz") for step in steps}
    while True:
        present = {file.uri for file in store.list_files(folder)}
        if present >= set(wanted.values()) or time.monotonic() > deadline:
            break
        time.sleep(poll_seconds)
    names = {step["Id"]: step["Name"] for step in steps}
    return {name: store.read_bytes(uri) for name, uri in _named(present, names)}


def _named(uris: set[str], names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for uri in sorted(uris):
        *_, step_id, file = uri.split("/")
        if step_id in names:
            yield f"steps/{names[step_id]}/{file}", uri


def _facts(store: Store, run: Run) -> dict[str, bytes]:
    """Return the recorded facts, and the configuration files of the driver's machine.

    The result is a dict from file names in the zip file to contents. Return an empty dict if no facts were recorded.
    """
    try:
        data = store.read_bytes(join(run.uri, "smoke", "facts.json"))
    except OSError:
        return {}
    files = json.loads(data)["driver"]["files"]
    return {"facts.json": data, **{f"driver{path}": text.encode() for path, text in files.items()}}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, default=str, sort_keys=True) + "\n").encode()
