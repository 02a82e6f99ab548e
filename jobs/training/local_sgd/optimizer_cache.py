"""The optimizer state of the workers of rounds: on their own disks, and now and then in the lake.

Between rounds a worker's state (moments, twice the size of the weights) stays in a folder of its machine, under
(training, rank, step). A task takes, in this order: its own rank's state of this very step; that of another rank which
trained here; what an all-reduce warm-up left in the checkpoint; the copy that its rank made at the last round of copies
(with another number of workers, rank modulo the number then), which is some rounds old; none, and moments begin anew.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]


class LocalStates:
    """The states of one training on this machine's disk."""

    def __init__(self, training: str) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"nightjar-cache-{os.getuid()}" / f"rounds-{training}"

    def read(self, rank: int, step: int) -> Tensors | None:
        """The state after `step` steps: that of `rank`, else another's; None if none is here."""
        paths = sorted(self._folder.glob(f"{step:08d}-*.safetensors"), key=lambda path: path != self._path(rank, step))
        for path in paths:
            try:
                return load_file(path)
            except (SafetensorError, OSError):  # another task removed it, or the disk was full
                continue
        return None

    def write(self, rank: int, step: int, before: int, tensors: Tensors) -> None:
        """Put the state after `step` steps in place; of this rank's, keep that of `before` for a repeated round."""
        path = self._path(rank, step)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            save_file(dict(tensors), temporary)
            temporary.replace(path)
        except (SafetensorError, OSError) as error:
            log.warning("the optimizer state of step %d is not kept on this machine: %s", step, error)
        finally:
            temporary.unlink(missing_ok=True)
        for other in self._folder.glob(f"*-{rank:04d}.safetensors"):
            if other not in (path, self._path(rank, before)):
                other.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove them all."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, rank: int, step: int) -> Path:
        return self._folder / f"{step:08d}-{rank:04d}.safetensors"
