"""The hashes of torch: those in the repository, and how they are read from an index."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from infra.setup import torch_hashes
from infra.setup.packages import SetupError
from nightjar.packaging import TORCH_CUDA, lock
from nightjar.packaging.build import PROJECT_ROOT
from nightjar.packaging.wheels import Target, torch_version

VERSION = torch_version(PROJECT_ROOT)


def page(names: list[str]) -> str:
    links = (
        f'<a href="/whl/cpu/{n.replace("+", "%2B")}#sha256={hashlib.sha256(n.encode()).hexdigest()}">{n}</a>'
        for n in names
    )
    return "<html>" + "<br/>\n".join(links)


def names(version: str) -> list[str]:
    local = [
        f"torch-{version}+cpu-{p}-{p}-manylinux_2_28_{m}.whl"
        for m in ("x86_64", "aarch64")
        for p in torch_hashes.PYTHONS
    ]
    return local + [f"torch-{version}-{p}-{p}-macosx_14_0_arm64.whl" for p in torch_hashes.PYTHONS]


def test_hashes_are_read_from_the_links_of_an_index(tmp_path: Path) -> None:
    listed = torch_hashes.read_index(
        page([*names("2.99.0"), *names("2.98.0"), "torch-2.99.0+cpu-cp311-cp311-win_amd64.whl"])
    )
    lines = torch_hashes.cpu_lines(listed, "2.99.0")
    pins = lock.read("\n".join(lines) + "\n")["torch"]
    assert [(pin.version, len(pin.hashes)) for pin in pins] == [("2.99.0+cpu", 6), ("2.99.0", 3)]
    first = hashlib.sha256(names("2.99.0")[0].encode()).hexdigest()
    assert first in pins[0].hashes
    (tmp_path / "lock.txt").write_text("# Kept.\n# unchecked: gone\ntorch==1\n")
    torch_hashes._replace(tmp_path / "lock.txt", lines)
    assert (tmp_path / "lock.txt").read_text().splitlines()[:2] == ["# Kept.", lines[0]]


def test_a_wheel_that_the_index_lacks_is_named() -> None:
    listed = torch_hashes.read_index(page(names("2.99.0")[1:]))
    with pytest.raises(SetupError, match=r"has no torch-2\.99\.0\+cpu-cp311-cp311-manylinux_2_28_x86_64\.whl"):
        torch_hashes.cpu_lines(listed, "2.99.0")


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_nodes_build_for_processors_has_hashes(architecture: str) -> None:
    [pin] = Target(architecture, "cpu").torch_pins(PROJECT_ROOT)
    assert pin.version == f"{VERSION}+cpu"
    assert len(pin.hashes) == 6


def test_the_nodes_build_for_gpus_fits_their_driver() -> None:
    pins = {pin.name: pin for pin in Target("x86_64", "cuda").torch_pins(PROJECT_ROOT)}
    assert pins["torch"].version == f"{VERSION}+{TORCH_CUDA}"
    text = torch_hashes.CUDA_LOCK.read_text()
    assert ("unchecked" in text) == (not pins["torch"].hashes)
