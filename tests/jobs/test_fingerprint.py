"""A dataset's name changes with its inputs, its settings and each module that it depends on, and with nothing else."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jobs
from jobs.fingerprint import IGNORED_MODULES, code_version, find_dependencies, fingerprint, hash_code

PACKAGE = Path(jobs.__path__[0])
STEPS = ("tokenize", "windows", "embed")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package's source."""
    folder = tmp_path_factory.mktemp("copy") / "jobs"
    shutil.copytree(PACKAGE, folder, ignore=lambda _, names: [name for name in names if name == "__pycache__"])
    return folder


def file_of(module, package):
    path = package.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def hash_after_edit(path, step, package):
    """The hash of a step's code after a comment was added to one file, which is then put back."""
    source = path.read_bytes()
    path.write_bytes(source + b"# edited\n")
    try:
        return hash_code(f"jobs.steps.{step}", package)
    finally:
        path.write_bytes(source)


def write_package(folder, **sources):
    for name, source in sources.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        (path / "__init__.py").touch()
    return folder


def test_a_fingerprint_depends_on_values_alone():
    assert fingerprint(a=1, b=[{"x": "é"}]) == fingerprint(b=[{"x": "é"}], a=1)
    assert len({fingerprint(a=1), fingerprint(a="1"), fingerprint(b=1)}) == 3


@pytest.mark.parametrize("step", STEPS)
def test_an_edit_of_any_dependency_changes_the_hash(step, copy):
    name = f"jobs.steps.{step}"
    before = hash_code(name, copy)
    assert before == code_version(name)
    found = find_dependencies(name, copy)
    hashes = [hash_after_edit(file_of(module, copy), step, copy) for module in found]
    assert len({before, *hashes}) == 1 + len(found)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_all_modules_that_python_loads_are_dependencies_or_leaves(step, copy):
    name = f"jobs.steps.{step}"
    code = f"import sys, {name}; print(*(name for name in sys.modules if name.split('.')[0] == 'jobs'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module for module in done.stdout.split() if ".".join(module.split(".")[:2]) not in IGNORED_MODULES}
    assert loaded <= set(find_dependencies(name, copy))


@pytest.mark.parametrize("step", STEPS)
def test_an_edit_of_a_leaf_changes_nothing(step, copy):
    before = hash_code(f"jobs.steps.{step}", copy)
    for leaf, reason in IGNORED_MODULES.items():
        path = copy.joinpath(*leaf.split(".")[1:])
        edited = list(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        assert edited
        assert reason
        for file in edited:
            assert hash_after_edit(file, step, copy) == before, file


def test_each_step_depends_on_little(copy):
    tokenize, windows, embed = (set(find_dependencies(f"jobs.steps.{step}", copy)) for step in STEPS)
    assert {"jobs.sources.names", "jobs.tokenizer.tokenizer", "jobs.datasets.split"} <= windows  # the split, the ids
    assert {"jobs.corpus.reading", "jobs.corpus.duplicates", "jobs.tokenizer.train"} <= tokenize
    assert {"jobs.embeddings.word2vec", "jobs.datasets.shards"} <= embed
    readers = {"jobs.corpus.documents", "jobs.corpus.reading", "jobs.sources.listing", "jobs.tokenizer.train"}
    assert not readers & (windows | embed)
    assert not {"jobs.datasets.split", "jobs.datasets.streams"} & (tokenize | embed)
    for found in (tokenize, windows, embed):
        assert not any(name.startswith(("jobs.training", "jobs.model", "jobs.cli")) for name in found)


def test_dependencies_are_not_imported_by_computed_names(copy):
    """Such imports would not be seen."""
    for step in STEPS:
        for module, source in find_dependencies(f"jobs.steps.{step}", copy).items():
            assert b"import_module" not in source, module
            assert b"__import__" not in source, module


def test_all_forms_of_imports_are_found(tmp_path):
    imports = """
import json, jobs.plain
import jobs.inner.renamed as other
from jobs import attribute
from jobs.inner.deep import function
from . import sibling
from ..steps.relative import *
if TYPE_CHECKING:
    import jobs.types
else:
    import jobs.runtime
def f():
    try:
        with open("x"):
            import jobs.in_function
    except ValueError:
        from jobs import handler
    finally:
        from jobs import last
"""
    names = ["plain", "inner__renamed", "attribute", "inner__deep", "steps__sibling", "steps__relative", "runtime"]
    names += ["in_function", "handler", "last"]
    others = dict.fromkeys(["types", "unused", "errors"], "")
    package = write_package(tmp_path / "jobs", steps__x=imports, **dict.fromkeys(names, ""), **others)
    found = find_dependencies("jobs.steps.x", package)
    modules = {f"jobs.{name.replace('__', '.')}" for name in names}
    assert set(found) == modules | {"jobs", "jobs.steps", "jobs.steps.x", "jobs.inner"}


def test_imports_in_a_circle_end(tmp_path):
    package = write_package(tmp_path / "jobs", a="from jobs import b", b="from jobs import a")
    assert set(find_dependencies("jobs.a", package)) == {"jobs", "jobs.a", "jobs.b"}


def test_the_hash_is_the_same_in_a_zip_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "jobs.zip", "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            archive.write(path, Path("jobs") / path.relative_to(PACKAGE))
    program = "from jobs import fingerprint as f; print(f.__file__, f.code_version('jobs.steps.windows'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "jobs.zip")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, version = done.stdout.split()
    assert "jobs.zip" in where
    assert version == code_version("jobs.steps.windows")
