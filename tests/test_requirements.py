"""The locks: complete, in agreement on every platform, hashed, and free of registry addresses."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path("requirements")
LOCKS = ("airflow", "job", "serve", "image", "dev", "bench", "fab")
PLATFORMS = [
    {"python_version": minor, "python_full_version": f"{minor}.9", "sys_platform": system, "platform_system": name}
    for minor in ("3.11", "3.12", "3.13")
    for system, name in (("linux", "Linux"), ("darwin", "Darwin"))
]


def locked(name: str) -> list[Requirement]:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return [Requirement(line.removesuffix("\\")) for line in lines if re.match(r"[a-z0-9]", line)]


def pins(name: str, platform: dict[str, str]) -> dict[str, str]:
    """Return the versions that a lock has for a platform."""
    chosen = [pin for pin in locked(name) if pin.marker is None or pin.marker.evaluate(platform)]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(names) == len(set(names)), "two versions of one package for one platform"
    return {canonicalize_name(pin.name): str(pin.specifier) for pin in chosen}


def direct(name: str) -> list[Requirement]:
    lines = (REQUIREMENTS / f"{name}.in").read_text().splitlines()
    return [Requirement(line) for line in lines if re.match(r"[a-z]", line)]


def has_pin_for(requirement: Requirement, chosen: dict[str, str]) -> bool:
    return requirement.specifier.contains(chosen[canonicalize_name(requirement.name)].removeprefix("=="))


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: f"{p['sys_platform']}-{p['python_version']}")
def test_the_locks_agree(platform: dict[str, str]) -> None:
    everything, image = pins("dev", platform), pins("image", platform)
    for name in ("airflow", "job", "serve"):
        part = pins(name, platform)
        assert part.items() <= everything.items()
        assert part.items() <= image.items()
    assert pins("airflow", platform).items() <= pins("fab", platform).items()


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_requirement_of_its_in_file(name: str) -> None:
    for platform in PLATFORMS:
        chosen = pins(name, platform)
        assert [str(wanted) for wanted in direct(name) if not has_pin_for(wanted, chosen)] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_no_address_and_no_path(name: str) -> None:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|\s/|\\\\", text)


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", (REQUIREMENTS / f"{name}.txt").read_text().strip())
    assert len(blocks) == len(locked(name))
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_airflow_environment_has_no_heavy_libraries() -> None:
    heavy = {"torch", "pyspark", "pyarrow", "numpy", "tokenizers", "gigatoken"}
    for platform in PLATFORMS:
        assert not heavy & pins("airflow", platform).keys()


def test_no_lock_has_torch_and_the_jobs_lock_has_its_requirements() -> None:
    assert not any("torch" in pins(name, platform) for name in LOCKS for platform in PLATFORMS)
    chosen = pins("job", PLATFORMS[0])
    needed = [Requirement(line) for line in metadata.requires("torch") or []]
    # Requirements with a marker are optional, or packages of CUDA.
    assert [str(wanted) for wanted in needed if wanted.marker is None and not has_pin_for(wanted, chosen)] == []
