"""The benchmarks still fit the code that they measure."""

from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

from bench.tokenize_step import PARTS

# These import libraries that only the benchmarks' own environments have.
NEED_PEERS = {"gensim_peer", "generate", "train"}
MODULES = sorted({path.stem for path in Path("bench").glob("*.py")} - {"__init__"} - NEED_PEERS)


@pytest.mark.parametrize("name", MODULES)
def test_benchmark_can_be_imported(name):
    import_module(f"bench.{name}")


@pytest.mark.parametrize("part", PARTS)
def test_measured_part_of_tokenizing_exists(part):
    module, name = PARTS[part]
    assert callable(attrgetter(name)(import_module(module)))
