"""Uploads the packaged job, once for each content."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.uri import join
from nightjar.packaging.build import build
from nightjar.storage import open_storage

log = logging.getLogger(__name__)


def upload(lake: Lake, root: Path) -> str:
    """Build the package of the code below `root`; return its folder in the lake.

    Its manifest is written last, so a package that is there is complete, and is not uploaded again.
    """
    package = build(root)
    folder = lake.package(package.sha256)
    storage = open_storage(folder)
    if any(file.name == MANIFEST for file in storage.list_files(folder)):
        log.info("Package %s is in the lake already", folder)
        return folder
    for name, data in package.files.items():
        storage.write(join(folder, name), data)
    storage.publish(join(folder, MANIFEST), _manifest(package.sha256, package.files))
    log.info("Uploaded package %s: %.2f MB", folder, sum(map(len, package.files.values())) / 1e6)
    return folder


def _manifest(sha256: str, files: dict[str, bytes]) -> bytes:
    entries = [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "counts": {}}
        for name, data in files.items()
    ]
    manifest = {"kind": "package", "fingerprint": sha256, "files": entries, "counts": {}, "inputs": {}}
    return json.dumps({**manifest, "format_version": 1}, indent=2).encode() + b"\n"
