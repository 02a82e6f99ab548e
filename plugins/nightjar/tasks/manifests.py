"""The output of a finished step. A step succeeded when it exited with code 0 *and* its manifest verifies.

Sizes alone are checked here, by one listing. The next reader of the data checks hashes.
"""

from __future__ import annotations

from jobs.errors import DamagedError
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.manifest import Manifest
from jobs.lake.store import Store
from jobs.lake.uri import join


def verify_step(step: str, run: Run, store: Store) -> Manifest:
    """Return the manifest that says that `step` of `run` is complete.

    Raises:
        DamagedError: if there is none, or a file that it lists is missing or has another size.
    """
    return verify_folder(_output_uri(step, run, store), store)


def verify_folder(folder_uri: str, store: Store) -> Manifest:
    """Return the manifest of the folder `folder_uri`.

    Raises:
        DamagedError: if there is none, or a file that it lists is missing or has another size.
    """
    manifest = store.read_manifest(folder_uri)
    if manifest is None:
        raise DamagedError(f"{join(folder_uri, MANIFEST)}: missing, though the step has ended; clear the step's task")
    store.verify_sizes(folder_uri, manifest)
    return manifest


def _output_uri(step: str, run: Run, store: Store) -> str:
    """Return the folder whose manifest says that the step is complete."""
    if step in ("train", "generate"):
        return run.train if step == "train" else run.generate
    kind = {"tokenize": "tokens", "windows": "windows", "embed": "embeddings"}[step]
    try:
        fingerprint = store.read_json(run.datasets)[kind]
    except (FileNotFoundError, KeyError, TypeError):
        fingerprint = None
    if not isinstance(fingerprint, str) or not fingerprint:
        raise DamagedError(f"{run.datasets}: has no '{kind}', though the step {step} has ended; clear the step's task")
    return Lake(run.lake_uri).dataset(kind, fingerprint)
