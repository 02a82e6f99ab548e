"""Bootstrap actions: scripts that run before a cluster's first step. They are really executed on this machine.

EMR runs them on every node. This server runs them once, because all nodes are this machine. Their logs are stored under
the primary node.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.emr import logs
from infra.emr.command import ClusterSpec, StepCommand
from infra.emr.execution import NOT_STARTED, GuardedCommand
from infra.emr.settings import ServerContext
from infra.emr.spark_home import find_spark
from jobs.errors import NightjarError
from jobs.lake.uri import to_uri

log = logging.getLogger(__name__)

PREFIX_VARIABLE = "NIGHTJAR_PREFIX"
_DOCUMENTATION = "https://docs.aws.amazon.com/emr/latest/ManagementGuide/"


@dataclass(frozen=True)
class BootstrapFailure:
    """The failure of a bootstrap action or of YARN's start: the message and details that the cluster's status shows."""

    message: str
    error_details: tuple[dict[str, Any], ...] = ()


def prefix(cluster_folder: Path) -> Path:
    """Return the local folder that takes the place of /opt/nightjar on a cluster's nodes."""
    return cluster_folder / "opt" / "nightjar"


def is_own(script: Mapping[str, Any]) -> bool:
    """Return whether `script` is the bootstrap action that builds Nightjar's Python environment."""
    return script["Path"].endswith("/bootstrap.sh") and "--package" in (script.get("Args") or ())


def skip_reason(script: Mapping[str, Any], mode: str) -> str:
    """Return why a bootstrap action is skipped if `EmrSettings.bootstrap` is `mode`. Return "" if it is not skipped."""
    if mode == "fast" and is_own(script):
        return "it builds Nightjar's environment, and steps use the server's Python; to run it, use --bootstrap full"
    return ""


class BootstrapAction(GuardedCommand):
    """One bootstrap action of a cluster."""

    def __init__(self, number: int, action: Mapping[str, Any], cluster_folder: Path, server: ServerContext) -> None:
        super().__init__(cluster_folder / "bootstrap-actions" / str(number), server)
        self._number = number
        self._script = action["ScriptBootstrapAction"]
        self._prefix = prefix(cluster_folder)

    def execute(self, cluster: ClusterSpec, instance_id: str, log_uri: str) -> BootstrapFailure | None:
        """Fetch and run the script, and upload its logs. Return the failure, or None if there was none."""
        self.prepare()
        script = self.folder / "action"
        try:
            if not self._fetch(script):
                return self._download_failure(instance_id)
            env = {**self.environment(cluster, find_spark()), PREFIX_VARIABLE: str(self._prefix)}
            arguments = [*(self._script.get("Args") or ()), *self._own_arguments()]
            status = self.run(StepCommand((str(script), *arguments)), env)
        finally:
            self.clean()
            if log_uri and not self.killed:
                self.server.uploads.add(self.folder, log_uri)
        return None if status in (0, NOT_STARTED) else self.failure(instance_id, status)

    def failure(self, instance_id: str, status: int) -> BootstrapFailure:
        """Describe the failure of this action after its script ended with a nonzero exit status."""
        message = (
            f"On the master instance ({instance_id}), bootstrap action {self._number} returned a non-zero return code"
        )
        return self._failure("BOOTSTRAP_FAILURE_PRIMARY_WITH_NON_ZERO_CODE", message, instance_id, str(status))

    def _own_arguments(self) -> list[str]:
        """Return the option that makes Nightjar's own action install into the cluster's folder.

        Return an empty list if this is another action.
        """
        return ["--prefix", str(self._prefix)] if is_own(self._script) else []

    def _fetch(self, script: Path) -> bool:
        uri = self._script["Path"]
        self.write_log(f"fetch {uri}")
        try:
            self.server.store.copy(to_uri(uri), script.as_uri())
        except (OSError, NightjarError) as error:
            self.write_log(f"cannot read {uri}: {error}")
            return False
        script.chmod(0o755)
        return True

    def _download_failure(self, instance_id: str) -> BootstrapFailure:
        code = "BOOTSTRAP_FAILURE_BA_DOWNLOAD_FAILED_PRIMARY"
        what = f"bootstrap action {self._number} file from S3"
        message = f"Master instance ({instance_id}) failed attempting to download {what}"
        return self._failure(code, message, instance_id, None)

    def _failure(self, code: str, message: str, instance_id: str, status: str | None) -> BootstrapFailure:
        data = {
            "primary-instance-id": instance_id,
            "bootstrap-action": str(self._number),
            "return-code": status,
            "amazon-s3-path": self._script["Path"],
            "public-doc": f"{_DOCUMENTATION}{code}.html",
        }
        pairs = [{name: value} for name, value in data.items() if value is not None]
        return BootstrapFailure(message, ({"ErrorCode": code, "ErrorData": pairs, "ErrorMessage": message},))


def worker_failure(number: int, instance_ids: list[str]) -> BootstrapFailure:
    """Describe the failure of bootstrap action `number` on these instances, which are not the primary node."""
    named = " and ".join(instance_ids[:2])
    where = f"On {len(instance_ids)} slave instances (including {named})"
    return BootstrapFailure(f"{where}, bootstrap action {number} returned a non-zero return code")


def write_fault(folder: Path, number: int, exit_code: int) -> Path:
    """Write the logs of a bootstrap action that fails because of an injected fault. Return the folder of these logs."""
    target = folder / "bootstrap-actions" / f"{number}-fault"
    target.mkdir(parents=True)
    for name in logs.NAMES:
        (target / name).touch()
    (target / "stderr").write_text("bootstrap: FAILED: a fault was injected into the embedded EMR\n", "utf-8")
    logs.write_controller(target, f"exit status {exit_code}")
    return target
