"""Upload the package to the lake. The same content is uploaded only once."""

from __future__ import annotations

import logging
from pathlib import Path

from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.store import Store
from nightjar import aws
from nightjar.packaging.build import build

log = logging.getLogger(__name__)


def upload(lake: Lake, root: Path, store: Store | None = None) -> str:
    """Build the package of the code below `root`, upload it and return its folder in the lake.

    The manifest is written last. So a package with a manifest is complete, and is not uploaded again.
    """
    package, store = build(root), store or aws.store()
    folder = lake.package(package.sha256)
    if store.read_manifest(folder) is not None:
        log.info("The lake has package %s already", folder)
        return folder
    entries = tuple(store.write_file(folder, name, data) for name, data in package.files.items())
    store.publish_manifest(folder, Manifest("package", package.sha256, entries))
    log.info("Uploaded package %s: %.2f MB", folder, sum(map(len, package.files.values())) / 1e6)
    return folder
