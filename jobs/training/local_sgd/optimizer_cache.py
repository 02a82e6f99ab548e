"""The optimizer states of the workers between rounds, on the local disks of their machines.

An optimizer state is up to twice as large as the weights, so a worker does not write it to the lake after each round.
It stays in a folder of its machine, named by training, rank and step. Every `train.state_every` rounds a copy goes to
the lake. A task takes the first of these that it finds:

1. the state of its own rank after the last round, from this machine;
2. the state of another rank after the last round, from this machine;
3. the state in the checkpoint, if an all-reduce warm-up has just ended;
4. its rank's latest copy in the lake, some rounds old (the copy of `rank` modulo the number of workers then);
5. no state: the moments begin at zero.
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


class OptimizerCache:
    """The optimizer states of one training on this machine's disk."""

    def __init__(self, training_id: str) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"nightjar-cache-{os.getuid()}" / f"rounds-{training_id}"

    def read(self, rank: int, step: int) -> Tensors | None:
        """Return the state of `rank` after `step` steps, else that of another rank, else None."""
        own = self._path(rank, step)
        for path in sorted(self._folder.glob(f"{step:08d}-*.safetensors"), key=lambda path: path != own):
            try:
                return load_file(path)
            except (SafetensorError, OSError):  # another task removed it, or the disk was full
                continue
        return None

    def write(self, rank: int, step: int, previous_step: int, tensors: Tensors) -> None:
        """Write the state of `rank` after `step` steps, and delete its older ones.

        The state of `previous_step` is kept for a task that repeats the round.
        """
        path = self._path(rank, step)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            save_file(dict(tensors), temporary)
            temporary.replace(path)
        except (SafetensorError, OSError) as error:
            log.warning("%s: could not keep the optimizer state of step %d: %s", self._folder, step, error)
        finally:
            temporary.unlink(missing_ok=True)
        for other in self._folder.glob(f"*-{rank:04d}.safetensors"):
            if other not in (path, self._path(rank, previous_step)):
                other.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all states of this training."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, rank: int, step: int) -> Path:
        return self._folder / f"{step:08d}-{rank:04d}.safetensors"
