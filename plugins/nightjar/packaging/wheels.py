"""Checks that wheels fit the nodes of a cluster: architecture, Python, lock, and the build of torch that was chosen.

By their names alone where they lie in a lake, by their content too before they are uploaded. Needs `packaging`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from nightjar.packaging import lock
from nightjar.packaging.build import OF_THE_RELEASE, PackageError

PYTHON = (3, 11)
GLIBC = 34  # 2.34, as in Amazon Linux 2023
_OF_CUDA = ("nvidia-", "cuda-", "triton")


@dataclass(frozen=True)
class Target:
    """The nodes that wheels are for."""

    architecture: str
    torch_build: str

    def __str__(self) -> str:
        return f"{self.architecture} with Python {PYTHON[0]}.{PYTHON[1]} and torch for {self.torch_build}"

    @property
    def platforms(self) -> list[str]:
        """The wheels' platforms that run there, the newest first."""
        newer = [f"manylinux_2_{minor}_{self.architecture}" for minor in range(GLIBC, 4, -1)]
        legacy = [f"manylinux{year}_{self.architecture}" for year in (2014, 2010, 1)]
        return [*newer, *legacy, f"linux_{self.architecture}"]

    @cached_property
    def tags(self) -> frozenset[Tag]:
        """The tags of wheels that run there."""
        native = cpython_tags(PYTHON, platforms=self.platforms)
        return frozenset((*native, *compatible_tags(PYTHON, f"cp{PYTHON[0]}{PYTHON[1]}", self.platforms)))

    def pins(self, locked: str) -> list[lock.Pin]:
        """What of a lock is installed there."""
        minor = f"{PYTHON[0]}.{PYTHON[1]}"
        environment = {
            "python_version": minor,
            "python_full_version": f"{minor}.9",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.architecture,
        }
        everything = (pin for pins in lock.read(locked).values() for pin in pins)
        return [
            pin
            for pin in everything
            if pin.name not in OF_THE_RELEASE and (pin.marker is None or Marker(pin.marker).evaluate(environment))
        ]


def check_names(names: Collection[str], target: Target, locked: str, torch_version: str) -> dict[str, str]:
    """Check wheels by their names; return the file of each distribution.

    Raises:
        PackageError: naming the file that does not fit or the distribution that is missing, and what to do.
    """
    files: dict[str, str] = {}
    pins = {pin.name: pin for pin in target.pins(locked)}
    for name in sorted(names):
        distribution, version, tags = _parse(name)
        if not tags & target.tags:
            raise PackageError(f"{name} does not run on {target}: {_again(target)}")
        if distribution == "torch":
            _check_torch(name, version, target, torch_version)
        elif distribution.startswith(_OF_CUDA) and target.torch_build == "cpu":
            raise PackageError(f"{name} belongs to CUDA, but the cluster has no GPUs: {_again(target)}")
        elif distribution in pins and pins[distribution].version != version:
            raise PackageError(
                f"{name} is not the locked {distribution} {pins[distribution].version}: {_again(target)}"
            )
        files[distribution] = name
    if missing := sorted(({*pins, "torch"}) - files.keys()):
        raise PackageError(f"no wheel of {', '.join(missing)}: {_again(target)}")
    return files


def check_folder(folder: Path, target: Target, locked: str, torch_version: str) -> dict[str, str]:
    """Check the wheels of a folder by name and hash; return the hash of each file.

    Raises:
        PackageError: as `check_names`; also if a file is not the one that was locked.
    """
    files = check_names([path.name for path in folder.iterdir()], target, locked, torch_version)
    hashes = dict(_hashes(folder))
    for pin in target.pins(locked):
        if hashes[files[pin.name]] not in pin.hashes:
            raise PackageError(
                f"{files[pin.name]} has a hash that is not in requirements/job.txt: delete it, and load it again"
            )
    return hashes


def torch_version(root: Path) -> str:
    """The version of torch that ``requirements/torch.txt`` pins."""
    found = re.search(r"^torch==([\w.]+)", (root / "requirements" / "torch.txt").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise PackageError(f"{root}/requirements/torch.txt pins no torch: write torch==VERSION")
    return found[1]


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            yield path.name, hashlib.file_digest(file, "sha256").hexdigest()


def _parse(name: str) -> tuple[str, str, frozenset[Tag]]:
    try:
        distribution, version, _, tags = parse_wheel_filename(name)
    except InvalidWheelFilename:
        raise PackageError(f"{name} is no wheel: nodes have no compiler, so take a version that has one") from None
    return distribution, str(version), tags


def _check_torch(name: str, version: str, target: Target, wanted: str) -> None:
    public, _, local = version.partition("+")
    if public != wanted:
        raise PackageError(f"{name} is not torch {wanted} of requirements/torch.txt: {_again(target)}")
    if target.torch_build == "cpu" and local != "cpu":
        raise PackageError(
            f"{name} is not marked +cpu, so it may need gigabytes of CUDA: take torch {wanted}+cpu ({_again(target)}),"
            " or instances with GPUs"
        )
    if target.torch_build == "cuda" and local == "cpu":
        raise PackageError(f"{name} is torch for CPU, but the nodes have GPUs: {_again(target)}")


def _again(target: Target) -> str:
    return f"make package-wheelhouse ARCH={target.architecture} BUILD={target.torch_build}"
