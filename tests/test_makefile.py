"""The front door: what `make` lists, and what it hands to the programs behind it."""

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
    """The real Makefile in a folder with a space in its name, with a Python that prints what it was given."""
    root = tmp_path / "a folder"
    (root / "infra" / "setup").mkdir(parents=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "Makefile").write_text(Path("Makefile").read_text())
    (root / ".venv" / "java_home").write_text("/opt/java 17\n")
    prints = 'printf "%s|%s|%s|%s" "$*" "${CORPUS-absent}" "$JAVA_HOME" "$PYTHONPATH"'
    for name, body in ("infra/setup/setup.sh", ""), (".venv/bin/python", prints):
        (root / name).write_text(f"#!/bin/sh\n{body}\n")
        (root / name).chmod(0o755)
    return root


def test_a_corpus_may_have_any_name(checkout: Path) -> None:
    expected = f"-m infra.demo|{AWKWARD_NAME}|/opt/java 17|.:plugins"
    assert make("demo", f"CORPUS={AWKWARD_NAME}", folder=checkout) == expected
    assert make("demo", folder=checkout, CORPUS=AWKWARD_NAME) == expected


def test_without_a_corpus_none_is_handed_on(checkout: Path) -> None:
    assert make("demo", folder=checkout) == "-m infra.demo|absent|/opt/java 17|.:plugins"


def test_help_lists_every_target_and_is_the_default(checkout: Path) -> None:
    listed = re.findall(r"^make ([a-z-]+) ", make(folder=checkout), re.MULTILINE)
    assert listed == re.findall(r"^\.PHONY: ([a-z-]+)$", Path("Makefile").read_text(), re.MULTILINE)
