"""Rules about imports and length that neither the contracts in ``pyproject.toml`` nor ruff can state."""

import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HEAVY = ("torch", "pyspark", "pyarrow", "numpy", "gigatoken", "tokenizers")
LIGHT = ("config", "errors", "fingerprint", "lake", "metrics", "prices", "results", "sources")
FOLDERS = ("bench", "dags", "infra", "jobs", "plugins", "tests")
MAX_LINES = 400


def modules(package: str) -> list[str]:
    """Return the names of a package and of all modules below it."""
    spec = find_spec(package)
    assert spec is not None
    found = pkgutil.walk_packages(spec.submodule_search_locations or [], f"{package}.")
    return [package, *(module.name for module in found)]


@pytest.mark.parametrize("package", LIGHT)
def test_a_light_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, {', '.join(modules(f'jobs.{package}'))}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_file_is_long() -> None:
    paths = [path for folder in FOLDERS for path in Path(folder).rglob("*.py")]
    assert {str(path): lines for path in paths if (lines := len(path.read_text().splitlines())) > MAX_LINES} == {}
