"""Command lines: every command and option of ``python -m jobs`` and ``nightjar``, with right and odd values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import typer

from infra.cli import main as nightjar
from jobs.cli import main as jobs
from jobs.config import flat_schema, preset_names, variable_name
from tests.fuzz import worlds
from tests.fuzz.children import Command, check
from tests.fuzz.registry import Case, family

NUMBERS = (
    *("0", "1", "-1", "2", "1.5", "-0", "1e400", "-1e400", "nan", "inf", "-inf", "1e-320", "9" * 400, "-" + "9" * 5000),
    *("0x10", "1_000", " 7 ", "", "٣", "²", "true", "null", "1e3", "4294967296", "9223372036854775808", "1e308", "½"),
)
TEXTS = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "a",
        "=",
        "-",
        "--",
        "--help",
        "é",
        "漢字",
        "\udcff",
        "caf\udce9",
        "\u202egnp.txt",
        "\x1b[31mred",
    ),
    *(
        "\u2028",
        "\ufeff",
        "x" * 300,
        "x" * 5000,
        "a b",
        "'",
        '"',
        "{",
        "[1",
        "[" * 3000,
        "$HOME",
        "%s%d",
        "\\",
        "😀",
        "a\nb",
    ),
)
_ODD_PLACES = (
    *("", " ", ".", "..", "../..", "/", "~", "~/x", "~nobody/x", "~nosuch/x", "-", "--", "x/..", "./t.txt", "t.txt/x"),
    *(
        "hdfs://x/y",
        "http://x/y",
        "https://",
        "s3a:/x",
        "s3:/x",
        "s3://",
        "s3:///x",
        "s3://b",
        "S3://b/x",
        "abfs://a@b/c",
    ),
    *("file://host/x", "file:x", "file:", "file:///", "file://", "file:///%00", "file:///%ff", "://x", "ftp://u:p@h/"),
    *(
        "\udcff",
        "\u202ex.txt",
        "a\nb",
        "x" * 300,
        "x" * 5000,
        "a/" * 2100,
        "/dev/null",
        "/dev/full",
        "/dev/zero",
        "/dev/stdin",
    ),
    *(
        "/proc/self/mem",
        "/proc/self/environ",
        "/root",
        "/nonexistent/x",
        "C:\\x",
        "[",
        "*",
        "**",
        "[z-a]",
        "{a,b}",
        "%41",
    ),
)
_MADE_PLACES = (
    *("t.txt", "empty.txt", "bad.txt", "dir", "dir/", "dir/*", "fifo", "loop", "link", "nowhere", "caf\udce9.txt"),
    *("夜 a.txt", "new\nline.txt", "-x.txt", "./-x.txt", "no.zip", "other.zip", "m.csv", "config.json", "locked.txt"),
    *("read-only", "read-only/t.txt", "read-only/new", "closed", "closed/x", "lake", "new", "new/a/b", "new.gguf"),
    *(
        "lake/runs/lab/local/one/config.json",
        "lake/runs/lab/local/none/config.json",
        "lake/runs/lab/local/one/model",
        "lake/runs/lab/local/two/model.zip",
    ),
    *(
        "lake/runs/lab/local/one/stats/metrics.csv",
        "lake/runs/lab/local/one",
        "lake/runs/lab/local/one/generate/generated.txt",
        "lake/models",
    ),
)
_RUN_IDS = (
    "one",
    "two",
    "champion",
    "none",
    "..",
    ".",
    "a/b",
    "../x",
    "",
    "~",
    "run",
    "é",
    "\udcff",
    "x" * 300,
    "one ",
    "-",
)
_STRAY = (["--bogus"], ["-x"], ["--"], ["--set"], ["extra"], ["--help"], ["-h"], [""], ["\udcff"])
_NO_RUNS = frozenset({"aws-bundle"})
"""Commands that write outside of the case's folder; only their wrong forms are tried."""


@dataclass(frozen=True)
class Form:
    """A command of a program, with its path (``aws-package check``) and its parameters."""

    program: str
    path: tuple[str, ...]
    params: tuple[Any, ...]


@cache
def forms() -> tuple[Form, ...]:
    """Return every command of both programs."""
    found = []
    for program, app in (("python -m jobs", jobs.app), ("nightjar", nightjar.app)):
        root: Any = typer.main.get_command(app)
        for name, command in root.commands.items():
            for inner, leaf in getattr(command, "commands", {"": command}).items():
                found.append(Form(program, tuple(filter(None, (name, inner))), tuple(leaf.params)))
    known = {form.path for form in found if form.program == "python -m jobs"}
    return tuple(form for form in found if form.program == "python -m jobs" or form.path not in known)


def place(rng: Random, folder: Path) -> str:
    """Return a place, which may not exist."""
    if rng.random() < 0.35:
        return rng.choice(_ODD_PLACES)
    name = rng.choice(_MADE_PLACES)
    form = rng.random()
    if form < 0.7:
        return name
    if form < 0.85:
        return f"{folder}/{name}"
    return Path(f"{folder}/{name}").as_uri()


def setting(rng: Random) -> str:
    """Return a value of ``--set``, mostly wrong."""
    keys = list(flat_schema())
    key = rng.choice((*keys, *("corpus", "preset", "train", "model", "", " ", ".", "train.", ".seed", "train..seed")))
    if rng.random() < 0.1:
        key = rng.choice((*TEXTS, "train.seed.x", "train.sed", "TRAIN.SEED", "tokenize.kind.kind", "log_level.x"))
    schema = flat_schema().get(key, {})
    odd = (
        "[]",
        "{}",
        '{"a": 1}',
        "[1, 2]",
        '"7"',
        "[null]",
        '["\\ud800"]',
        '"\\ud800"',
        '[""]',
        "[[1]]",
        "NaN",
        "-Infinity",
    )
    values: Sequence[str] = (
        *NUMBERS,
        *TEXTS,
        *odd,
        json.dumps(schema.get("default")),
        *map(str, schema.get("enum", ())),
    )
    return key if rng.random() < 0.05 else f"{key}={rng.choice(values)}"


def _preset(rng: Random, _: Path) -> str:
    return rng.choice((*preset_names(), "tiny", "tiny", "demo.toml", "../tiny", "TINY", "", "\udcff"))


def _model(rng: Random, folder: Path) -> str:
    return rng.choice((*_RUN_IDS, *["one"] * 9, *["two"] * 3, "lake/runs/lab/local/one/model.zip", place(rng, folder)))


_VALUES: dict[str, Callable[[Random, Path], str]] = {
    "settings": lambda rng, _: setting(rng),
    "preset": _preset,
    "model": _model,
    "run": lambda rng, _: rng.choice((*_RUN_IDS, "one", "two")),
    "run_id": lambda rng, _: rng.choice((*_RUN_IDS, "one", "two", "new")),
    "engine": lambda rng, _: rng.choice(("inline",) * 12 + ("Inline", "", "x")),
    "config": lambda rng, folder: rng.choice(
        (*["lake/runs/lab/local/one/config.json"] * 3, *["lake/runs/lab/local/two/config.json"] * 3, place(rng, folder))
    ),
    "file": lambda rng, folder: rng.choice(("lake/runs/lab/local/one/stats/metrics.csv", "m.csv", place(rng, folder))),
    "lake": lambda rng, folder: rng.choice((*["lake"] * 5, place(rng, folder))),
    "corpus": lambda rng, folder: rng.choice((*["t.txt"] * 4, place(rng, folder))),
    "form": lambda rng, _: rng.choice(("gguf", "zip", "folder") * 5 + ("GGUF", "", "safetensors")),
    "output": lambda rng, folder: rng.choice(
        (*["out", "out.zip", "dir/out.gguf"], place(rng, folder), place(rng, folder))
    ),
    "neighbours": lambda rng, _: rng.choice(("the", "a", ",", *TEXTS)),
    "prompt": lambda rng, _: rng.choice(("The", "The man", *TEXTS)),
    "max_new_tokens": lambda rng, _: rng.choice(("1", "3", "0", "-1", *NUMBERS)),
    "prompt_file": place,
    "config_file": place,
    "max_new_words": lambda rng, _: rng.choice(("1", "3", *NUMBERS)),
    "min_new_words": lambda rng, _: rng.choice(("1", "3", *NUMBERS)),
    "dtype": lambda rng, _: rng.choice(("float32", "bfloat16", "int8", "float64", "")),
    "state_dir": place,
    "api_key_file": place,
    "env": lambda rng, _: rng.choice((*("A=b", "A", "=", "=b", "", "A=\udcff", "A=b=c", "\udcff=b"), *TEXTS)),
    "bucket": lambda rng, _: rng.choice(("lake", "", "A_B", "a/b", "x", "é", "x" * 300, "..", "lake")),
    "host": lambda rng, _: rng.choice(
        ("127.0.0.1", "localhost", "256.1.1.1", "", "no such host", "é", "\udcff", "::1", "8.8.8.8")
    ),
    "port": lambda rng, _: rng.choice(("0", "0", "1", "70000", "-1", "x")),
    "parameters": lambda rng, _: rng.choice(("A=b", "A", "=", "", "BucketName=x", *TEXTS)),
}


def value(rng: Random, param: Any, folder: Path) -> str:
    """Return a value of a parameter, right or odd."""
    if rng.random() < 0.06:
        return rng.choice((*TEXTS, *NUMBERS))
    make = _VALUES.get(param.name)
    return make(rng, folder) if make else rng.choice((*NUMBERS, "0.5", "1", "7"))


def arguments(rng: Random, form: Form, folder: Path) -> list[str]:
    """Return arguments of a command."""
    words = [part for param in form.params for part in _given(rng, form, param, folder)]
    if rng.random() < 0.15:
        words.append(rng.choice(_STRAY))
    rng.shuffle(words)
    flat = [word for part in words for word in part]
    if form.path[0] in _NO_RUNS or "aws-package" in form.path:
        flat.append(rng.choice(("--no", "extra", "--lake")))
    if form.path == ("run",):
        flat += ["--engine", "inline", *worlds.settings_options(worlds.CHEAP)]
        flat += [] if "--preset" in flat else ["--preset", "tiny"]
    return [*form.path, *flat]


def _given(rng: Random, form: Form, param: Any, folder: Path) -> Iterator[Sequence[str]]:
    """Yield the words of a parameter for each time that it is given."""
    is_wanted = rng.random() < (0.97 if param.required else 0.25)
    if param.name == "engine" and "aws" not in form.path[0]:
        is_wanted = True  # its default starts a JVM for some commands
    if not is_wanted or param.name in ("master", "executors", "destroy"):
        return
    for _ in range(rng.choice((1,) * 12 + (2,))):
        option = param.opts[0]
        if getattr(param, "is_flag", False):
            yield [option]
        elif option.startswith("-"):
            text = value(rng, param, folder)
            yield rng.choice(([option, text], [option, text], [f"{option}={text}"]))
        else:
            yield [value(rng, param, folder)]


def environment(rng: Random) -> dict[str, str | None]:
    """Return changes of the environment."""
    changes: dict[str, str | None] = {}
    if rng.random() < 0.15:
        key = rng.choice(list(flat_schema()))
        changes[variable_name(key)] = rng.choice((*NUMBERS, *TEXTS, "[]", "{}"))
    if rng.random() < 0.1:
        name = rng.choice(
            ("NIGHTJAR_LAKE", "NIGHTJAR_TRAIN_SED", "NIGHTJAR_", "NIGHTJAR_CORPUS", "NIGHTJAR_TRAIN_", "COLUMNS")
        )
        changes[name] = rng.choice((*TEXTS, *NUMBERS, *_ODD_PLACES))
    if rng.random() < 0.05:
        changes["HOME"] = rng.choice((None, "", "/nonexistent"))
    return {name: text for name, text in changes.items() if text is None or "\0" not in text}


@family("command")
def _command(rng: Random, folder: Path) -> Case:
    """Any command, with options and values that are right, wrong, missing or repeated."""
    folder = worlds.inner_folder(folder)
    lake = worlds.copy_lake(folder)
    worlds.fill(rng, folder)
    form = rng.choice(forms())
    given = (
        arguments(rng, form, folder) if rng.random() < 0.97 else rng.choice(([], [rng.choice(TEXTS)], ["run", "run"]))
    )
    command = Command(
        given,
        form.program,
        {**S3, **environment(rng)},
        stdin=rng.choice((b"", b"The man", b"\xff\x00", None)),
        is_damaged=form.path[0] in ("aws-deploy", "prices"),  # AWS cannot be reached
        is_endless=form.path[0] in ("emr", "run", "replay", "embed", "sample", "serve"),
    )
    return Case(str(command), partial(check, command, folder, lake), lake)


S3 = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}
"""The environment of a machine whose S3 cannot be reached."""
