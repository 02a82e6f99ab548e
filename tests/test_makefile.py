"""The Makefile: the targets that it lists, and what it passes to the programs behind them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

AWKWARD_NAME = """it's "my" $HOME $(x) # text.txt"""


def make(*arguments: str, folder: Path, **environment: str) -> str:
    command = ["make", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))} | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The real Makefile in a folder with a space in its name, with a Python that prints what it receives."""
    root = tmp_path / "a folder"
    (root / "infra" / "setup").mkdir(parents=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "Makefile").write_text(Path("Makefile").read_text())
    (root / ".venv" / "java_home").write_text("/opt/java 17\n")
    prints = 'printf "%s|%s|%s" "$*" "${CORPUS-absent}" "$JAVA_HOME"'
    for name, body in ("infra/setup/setup.sh", ""), (".venv/bin/python", prints):
        (root / name).write_text(f"#!/bin/sh\n{body}\n")
        (root / name).chmod(0o755)
    return root


def test_a_corpus_may_have_any_name(checkout: Path) -> None:
    expected = f"-m infra.demo|{AWKWARD_NAME}|/opt/java 17"
    assert make("demo", f"CORPUS={AWKWARD_NAME}", folder=checkout) == expected
    assert make("demo", folder=checkout, CORPUS=AWKWARD_NAME) == expected


def test_without_a_corpus_the_variable_is_absent(checkout: Path) -> None:
    assert make("demo", folder=checkout) == "-m infra.demo|absent|/opt/java 17"


def test_test_one_runs_the_named_test(checkout: Path) -> None:
    printed = make("--silent", "test-one", "T=tests/jobs -k words", folder=checkout)
    assert printed == "-m pytest --exitfirst -m long or not long tests/jobs -k words|absent|/opt/java 17"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("test-one", folder=checkout)
    assert "make test-one T=" in failed.value.stderr


def test_help_lists_every_target_and_is_the_default(checkout: Path) -> None:
    listed = re.findall(r"^  make ([a-z-]+) ", make(folder=checkout), re.MULTILINE)
    assert listed == re.findall(r"^\.PHONY: ([a-z-]+)$", Path("Makefile").read_text(), re.MULTILINE)
