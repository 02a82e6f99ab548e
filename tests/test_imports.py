"""Who may import whom: ``dags -> plugins -> jobs``, what the scheduler parses stays light, and no file grows long."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIGHT = (
    "jobs.config",
    "jobs.lake.uri",
    "jobs.lake.layout",
    "jobs.lake.atomic",
    "jobs.sources.names",
    "jobs.errors",
    "jobs.metrics",
)
LIBRARIES = ("sources", "corpus", "tokenizer", "datasets", "embeddings", "model", "generation", "model_io", "report")
HEAVY = ("torch", "pyspark", "pyarrow", "numpy", "gigatoken", "tokenizers")
FOLDERS = ("dags", "plugins", "jobs", "infra", "tests", "bench")
MAX_LINES = 500


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth; of ``from a import b`` both ``a`` and ``a.b``."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def offences(paths: list[Path], *forbidden: str) -> list[str]:
    return [f"{path} imports {module}" for path in paths for module in imported(path) if is_in(module, *forbidden)]


def plugin_modules() -> list[str]:
    """The names under which ``plugins`` is imported: the folder itself is on the path."""
    return [
        path.stem for path in Path("plugins").glob("*") if path.suffix in ("", ".py") and path.stem != "__pycache__"
    ]


def test_plugins_do_not_import_dags() -> None:
    assert not offences(sources("plugins"), "dags", *(path.stem for path in Path("dags").glob("*.py")))


def test_jobs_import_neither_dags_nor_plugins_nor_airflow() -> None:
    assert not offences(sources("jobs"), "dags", "plugins", "airflow", "infra", "tests", *plugin_modules())


def test_dags_and_plugins_import_of_jobs_only_what_is_light() -> None:
    heavy = [
        f"{path} imports {module}"
        for path in sources("dags", "plugins")
        if path.name != "launcher.py"  # package data: it starts the job on the cluster
        for module in imported(path)
        if is_in(module, "jobs") and module != "jobs" and not is_in(module, *LIGHT)
    ]
    assert not heavy


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_modules_import_neither_steps_nor_engine(library: str) -> None:
    assert not offences(sources(f"jobs/{library}"), "jobs.steps", "jobs.engine", "pyspark")


def test_steps_and_the_inline_engine_do_not_import_pyspark() -> None:
    inline = [path for path in sources("jobs/engine") if path.match("engine/inline*")]
    assert not offences(sources("jobs/steps") + inline, "pyspark")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_file_is_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(*FOLDERS)}
    assert not {str(path): length for path, length in lengths.items() if length > MAX_LINES}


def test_offences_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules above would pass if they saw nothing."""
    monkeypatch.chdir(tmp_path)
    step = Path("jobs/steps/train.py")
    step.parent.mkdir(parents=True)
    step.write_text("from .. import engine\nfrom ..engine.spark import run\ndef f():\n    import pyspark.sql\n")
    assert set(imported(step)) >= {"jobs.engine", "jobs.engine.spark", "pyspark.sql"}
    assert offences(sources("jobs/steps"), "pyspark") == ["jobs/steps/train.py imports pyspark.sql"]
