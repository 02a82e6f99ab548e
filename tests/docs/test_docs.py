"""The documentation fits the code: links, paths, commands, settings and generated pages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import generate
from jobs.config import flat_schema

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "bench" / "README.md",
        ROOT / "infra" / "emr" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
REFERENCE = ROOT / "docs" / "reference"
SETTINGS = flat_schema()
OPTIONS = {words.partition(" ")[2]: options for words, options in generate.options().items()}
GROUPS = {words.partition(" ")[0] for words in OPTIONS if " " in words}
FOLDERS = "bench|dags|docs|infra|jobs|plugins|requirements|tests"


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading)) for heading in plain}


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command that a page shows, in a line of its own or in backquotes."""
    lines = re.findall(r"^ {4}(?! )(.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    for line in lines:
        for part in re.split(r"&&|\|(?! )|(?<!\\)\| ", line.split("   ")[0].split(" # ")[0]):
            try:
                words = shlex.split(part)
            except ValueError:
                continue
            if words:
                yield words


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", page.read_text("utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {words[1] for words in commands(page.read_text("utf-8")) if words[0] == "make" and len(words) > 1}
    assert {name for name in named if re.fullmatch(r"[a-z-]+", name)} <= targets


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    for words in commands(page.read_text("utf-8")):
        if words[0].rpartition("/")[2] == "nightjar" and len(words) > 1:
            name, rest = words[1], words[2:]
        elif "-m jobs" in " ".join(words[:3]) and len(words) > 3:
            name, rest = words[3], words[4:]
        else:
            continue
        if name in GROUPS and rest:
            name, rest = f"{name} {rest[0]}", rest[1:]
        if re.fullmatch(r"[a-z][a-z -]+", name):
            assert name in OPTIONS, words
            assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= OPTIONS[name], words


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != REFERENCE], ids=by_name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    sections = {value["section"] for value in SETTINGS.values()}
    named = re.findall(r"`(\w+)\.(\w+)(?:=[^`]*)?`", page.read_text("utf-8"))
    unknown = [f"{a}.{b}" for a, b in named if a in sections and f"{a}.{b}" not in SETTINGS]
    others = re.compile(r"spark\.[a-zA-Z]+|\w+\.(zip|json|py|toml|safetensors)")  # Spark's own names; files
    assert [name for name in unknown if not others.fullmatch(name)] == []


@pytest.mark.parametrize("name", generate.GENERATED)
def test_generated_files_are_fresh(name: str) -> None:
    content = generate.GENERATED[name]()
    assert (ROOT / "docs" / name).read_text("utf-8") == content, "run make docs and commit the generated files"


def test_the_readme_fits_on_a_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_the_index_lists_each_decision_with_its_date():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text("utf-8")
    decisions = [
        (page.name, *found)
        for page in sorted(folder.glob("*.md"))
        for found in re.findall(r"^## (.+)\n\n\*(\d{4}-\d\d-\d\d)\.", page.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(decisions) > 100
    missing = [each for each in decisions if f"| {each[2]} | [{each[1]}]({each[0]}#" not in index]
    assert missing == []
