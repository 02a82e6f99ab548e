"""Check that wheels fit a cluster's nodes: architecture, Python version, locked versions and the build of torch.

Before the upload, `check_folder` checks names and hashes. In the lake, `check_names` checks only the names.
A wheel that does not fit is a `PackageError`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from nightjar.packaging import CUDA_PREFIXES, GLIBC_MINOR, PROVIDED_BY_EMR, PYTHON_VERSION, TORCH_CUDA, lock
from nightjar.packaging.build import PackageError

_PYTHON = ".".join(map(str, PYTHON_VERSION))


@dataclass(frozen=True)
class Target:
    """The kind of node that wheels are for: its processor architecture, and whether torch is built for CPUs or GPUs."""

    architecture: str
    torch_build: str

    def __str__(self) -> str:
        return f"{self.architecture} with Python {_PYTHON} and torch for {self.torch_build}"

    @property
    def platforms(self) -> list[str]:
        """Platform tags of the wheels that run on the nodes, newest first."""
        newer = [f"manylinux_2_{minor}_{self.architecture}" for minor in range(GLIBC_MINOR, 4, -1)]
        legacy = [f"manylinux{year}_{self.architecture}" for year in (2014, 2010, 1)]
        return [*newer, *legacy, f"linux_{self.architecture}"]

    @cached_property
    def tags(self) -> frozenset[Tag]:
        """All tags of the wheels that run on the nodes."""
        native = cpython_tags(PYTHON_VERSION, platforms=self.platforms)
        return frozenset((*native, *compatible_tags(PYTHON_VERSION, f"cp{_PYTHON.replace('.', '')}", self.platforms)))

    def pins(self, locked: str) -> list[lock.Pin]:
        """Return the pins of a lock that apply to the nodes, without what the EMR release provides."""
        return [pin for pin in self._applying(locked) if pin.name not in PROVIDED_BY_EMR]

    def torch_pins(self, root: Path) -> list[lock.Pin]:
        """Return the pins of torch for the nodes. For GPUs, they include the pins of torch's CUDA packages."""
        name = f"torch-{self.torch_build}.txt"
        return self._applying((root / "requirements" / name).read_text("utf-8"))

    def _applying(self, locked: str) -> list[lock.Pin]:
        environment = {
            "python_version": _PYTHON,
            "python_full_version": f"{_PYTHON}.9",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.architecture,
        }
        return [
            pin
            for pin in (pin for pins in lock.read(locked).values() for pin in pins)
            if pin.marker is None or Marker(pin.marker).evaluate(environment)
        ]


def check_names(names: Collection[str], target: Target, locked: str, torch_version: str) -> dict[str, str]:
    """Check wheels by their file names. Return a dict from each distribution to the file name of its wheel."""
    files: dict[str, str] = {}
    pins = {pin.name: pin for pin in target.pins(locked)}
    for name in sorted(names):
        distribution, version, tags = _parse(name)
        if not tags & target.tags:
            raise PackageError(f"{name} does not run on {target}; download one that does with: {_command(target)}")
        if distribution == "torch":
            _check_torch(name, version, target, torch_version)
        elif distribution.startswith(CUDA_PREFIXES) and target.torch_build == "cpu":
            raise PackageError(
                f"{name} is part of CUDA, but the cluster has no GPUs; make a wheelhouse for CPUs with:"
                f" {_command(target)}"
            )
        elif distribution in pins and pins[distribution].version != version:
            raise PackageError(
                f"{name} is not the locked {distribution} {pins[distribution].version}; download it with:"
                f" {_command(target)}"
            )
        files[distribution] = name
    if missing := sorted(({*pins, "torch"}) - files.keys()):
        raise PackageError(f"no wheel for {', '.join(missing)}; download it with: {_command(target)}")
    return files


def check_folder(
    folder: Path, target: Target, locked: str, torch_version: str, torch_pins: Collection[lock.Pin] = ()
) -> dict[str, str]:
    """Check the wheels in a folder by file name and hash. Return a dict from file name to hash.

    A pin of `torch_pins` without hashes is not checked.
    """
    files = check_names([path.name for path in folder.iterdir()], target, locked, torch_version)
    hashes = {path.name: _hash(path) for path in sorted(folder.iterdir())}
    lists = {f"torch-{target.torch_build}.txt": [pin for pin in torch_pins if pin.hashes]}
    for name, pins in {"job.txt": target.pins(locked), **lists}.items():
        for pin in pins:
            if hashes[files[lock.normalized(pin.name)]] not in pin.hashes:
                raise PackageError(
                    f"{files[lock.normalized(pin.name)]} has a hash that is not in requirements/{name}; delete the file"
                    " and download it again"
                )
    return hashes


def torch_version(root: Path) -> str:
    """Return the version of torch that ``requirements/torch.txt`` pins."""
    found = re.search(r"^torch==([\w.]+)", (root / "requirements" / "torch.txt").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise PackageError(f"{root}/requirements/torch.txt: does not pin torch; write torch==VERSION")
    return found[1]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(name: str) -> tuple[str, str, frozenset[Tag]]:
    try:
        distribution, version, _, tags = parse_wheel_filename(name)
    except InvalidWheelFilename:
        raise PackageError(
            f"{name} is not a wheel, and nodes have no compiler: choose a version that has wheels"
        ) from None
    return distribution, str(version), tags


def _check_torch(name: str, version: str, target: Target, wanted: str) -> None:
    public, _, local = version.partition("+")
    if public != wanted:
        raise PackageError(
            f"{name} is not torch {wanted} of requirements/torch.txt; download it with: {_command(target)}"
        )
    if target.torch_build == "cpu" and local != "cpu":
        raise PackageError(
            f"{name} has no +cpu in its version, so it may need gigabytes of CUDA; choose instances with GPUs, or"
            f" download torch {wanted}+cpu with: {_command(target)}"
        )
    if target.torch_build == "cuda" and local == "cpu":
        raise PackageError(
            f"{name} is a CPU build, but the nodes have GPUs; download the GPU build with: {_command(target)}"
        )
    if target.torch_build == "cuda" and local != TORCH_CUDA:
        raise PackageError(
            f"{name} is not the build +{TORCH_CUDA}: the GPU driver of the EMR release is too old for other builds, and"
            f" training could not use the GPU; download this build with: {_command(target)}"
        )


def _command(target: Target) -> str:
    return f"make package-wheelhouse ARCH={target.architecture} BUILD={target.torch_build}"
