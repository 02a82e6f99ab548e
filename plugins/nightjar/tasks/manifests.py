"""What a finished step left: a step succeeded when it exited 0 *and* its manifest verifies.

Only sizes are compared here, by one listing; the next reader of the data checks hashes.
"""

from __future__ import annotations

import json
from typing import Any

from jobs.errors import DamagedError
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.uri import join
from nightjar.storage import Storage


def output_uri(step: str, run: Run, storage: Storage) -> str:
    """The folder whose manifest says that `step` of `run` is complete.

    Raises:
        DamagedError: if the run's ``datasets.json`` does not name the step's dataset.
    """
    if step in ("train", "generate"):
        return run.train if step == "train" else run.generate
    lake, kind = Lake(run.lake_uri), {"tokenize": "tokens", "windows": "windows", "embed": "embeddings"}[step]
    fingerprint = _read_json(storage, run.datasets).get(kind)
    if not isinstance(fingerprint, str) or not fingerprint:
        raise DamagedError(f"{run.datasets}: names no dataset of {kind}, though {step} has ended")
    return {"tokens": lake.tokens, "windows": lake.windows, "embeddings": lake.embeddings}[kind](fingerprint)


def verify(folder_uri: str, storage: Storage) -> dict[str, Any]:
    """Return the manifest at `folder_uri`, after a look at every file that it lists.

    Raises:
        DamagedError: if there is no manifest, or a file is missing or has another size.
    """
    manifest = _read_json(storage, join(folder_uri, MANIFEST))
    sizes = {file.name: file.size for file in storage.list_files(folder_uri)}
    for entry in manifest.get("files", []):
        found = sizes.get(entry["name"])
        if found != entry["size"]:
            what = "missing" if found is None else f"has {found} bytes"
            raise DamagedError(f"{join(folder_uri, entry['name'])}: {what}, the manifest says {entry['size']} bytes")
    return manifest


def _read_json(storage: Storage, uri: str) -> dict[str, Any]:
    try:
        value = json.loads(storage.read(uri))
    except FileNotFoundError:
        raise DamagedError(f"{uri}: missing, though the step has ended") from None
    except ValueError:
        raise DamagedError(f"{uri}: not JSON") from None
    if not isinstance(value, dict):
        raise DamagedError(f"{uri}: not a JSON object")
    return value
